"""Training batches: what is drawn, how often, and that each row finds its own user, context and positives."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ml.examples.context import subject_context
from ml.examples.pairs import Examples
from ml.examples.period import Prepared, TrainingPeriod, prepare
from ml.features.event_log import newest
from ml.features.items import DAY
from ml.models.item_model import ItemBatch
from ml.training.item_task import ItemTask
from ml.training.loss import accidental_hits, expected_count, sampled_softmax
from ml.training.sampling import Batches, Cell, EpochPlan, SampledBatch
from settings import Settings
from tests.ml.worlds import (
    EVENT_NAMES,
    START,
    Event,
    event_frame,
    instant,
    item_frame,
    newest_content,
    rule,
    small_settings,
    user_frame,
)

WINDOW_DAYS = 15.0


def batches_of(prepared: Prepared, dropout: float = 0.0, **training: float) -> Batches[ItemBatch]:
    settings = small_settings(
        training={"batch_size": 64, "corpus_negatives": 32} | training,
        context={"dropout": dropout},
        model={"content_dropout": 0.0, "width": 16, "heads": 2},
    )
    return ItemTask(prepared, settings, WINDOW_DAYS).batches()


def rows_of(batch: SampledBatch[ItemBatch]) -> int:
    return len(batch.weight)


def test_an_epoch_holds_every_example_once_and_as_many_batches_as_it_says(prepared: Prepared) -> None:
    """Content of the rows is not enough to tell examples apart, so their weights number them."""
    numbered = replace(prepared.examples, weight=np.arange(len(prepared.examples), dtype=np.float32))
    batches = batches_of(replace(prepared, examples=numbered))
    for epoch in range(2):
        batches.epoch = epoch
        drawn = list(batches)
        seen = torch.cat([batch.weight for batch in drawn]).numpy().astype(int)
        assert sorted(seen.tolist()) == list(range(len(prepared.examples)))
        assert len(drawn) == len(batches)
        for batch in drawn:
            own = batch.weight.numpy().astype(int)
            assert len(np.unique(numbered.cutoff[own])) == 1  # one cut-off a batch
            assert batch.candidate_rows[: len(own)].tolist() == numbered.item[own].tolist()


@pytest.mark.parametrize("epoch_examples", [10_000, 300])
def test_a_user_of_more_positives_than_a_batch_holds_is_cut(prepared: Prepared, epoch_examples: int) -> None:
    """Fewer batches than ``len`` says make Lightning leave out the validation."""
    one = prepared.examples.take(np.zeros(240, np.int64))
    every = [prepared.examples, replace(one, item=np.arange(240))]
    joined = Examples(*(np.concatenate([getattr(part, name) for part in every]) for name in Examples.__annotations__))
    subjects = np.full(len(joined), -1)
    heavy = replace(prepared, examples=joined, subjects=subjects)
    batches = batches_of(heavy, batch_size=32, epoch_examples=epoch_examples)
    for epoch in range(5):
        batches.epoch = epoch
        drawn = [rows_of(batch) for batch in batches]
        assert len(drawn) == len(batches)
        assert max(drawn) <= 3 * 32
        assert min(drawn) > 0
        if epoch_examples > len(joined):
            assert sum(drawn) == len(joined)


def test_more_examples_than_an_epoch_holds_are_drawn_anew_each_epoch(prepared: Prepared) -> None:
    numbered = replace(prepared.examples, weight=np.arange(len(prepared.examples), dtype=np.float32))
    batches = batches_of(replace(prepared, examples=numbered), epoch_examples=200, corpus_negatives=0, batch_size=16)
    epochs = []
    for epoch in range(80):
        batches.epoch = epoch
        seen = torch.cat([batch.weight for batch in batches]).numpy().astype(int).tolist()
        assert len(set(seen)) == len(seen)
        assert 150 < len(seen) < 250
        epochs.append(set(seen))
    assert epochs[0] != epochs[1]
    assert np.mean([len(seen) for seen in epochs]) == pytest.approx(200, rel=0.15)  # whole users and whole batches
    assert set().union(*epochs) == set(range(len(numbered)))


def test_expected_counts_equal_how_often_items_are_drawn(prepared: Prepared) -> None:
    """E against how often an item stood among the negatives of a row, over rows of which it is no positive."""
    batches = batches_of(prepared, epoch_examples=400)
    items = len(prepared.dataset.features)
    found, expected = np.zeros(items), np.zeros(items)
    for epoch in range(40):
        batches.epoch = epoch
        for batch in batches:
            row_share = torch.from_numpy(share_of(batches, batch))
            available = torch.from_numpy(np.isin(np.arange(items), corpus_of(batches, batch)))
            count = expected_count(row_share, rows_of(batch), 32, batch.corpus) * available
            negative = ~accidental_hits(torch.arange(items), batch.group, batch.positive_keys, items)
            expected += (negative.sum(0) * count).numpy()
            counts = np.bincount(batch.candidate_rows.numpy(), minlength=items)
            found += (negative.sum(0).numpy()) * counts
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)
    often = expected > np.median(expected)
    np.testing.assert_allclose(found[often], expected[often], rtol=0.3)
    popular = np.argsort(expected)[-10:]  # in-batch draws, not the uniform ones, make these
    assert found[popular].sum() == pytest.approx(expected[popular].sum(), rel=0.02)
    np.testing.assert_allclose(found[popular], expected[popular], rtol=0.1)


def cell_of(batches: Batches[ItemBatch], batch: SampledBatch[ItemBatch]) -> Cell:
    """The cell that a batch was drawn from: the one whose shares it carries."""
    rows = batch.candidate_rows.numpy()
    (found,) = (cell for cell in batches.cells if np.array_equal(cell.share[rows], batch.share.numpy()))
    return found


def share_of(batches: Batches[ItemBatch], batch: SampledBatch[ItemBatch]) -> NDArray[np.float32]:
    return cell_of(batches, batch).share


def corpus_of(batches: Batches[ItemBatch], batch: SampledBatch[ItemBatch]) -> NDArray[np.int64]:
    return cell_of(batches, batch).pool


def test_shares_are_those_of_the_cells_positives(prepared: Prepared) -> None:
    batches = batches_of(prepared)
    batch = next(iter(batches))
    items = prepared.examples.item[cell_of(batches, batch).rows]
    for row, share in zip(batch.candidate_rows.tolist(), batch.share.tolist(), strict=True):
        assert abs(share - (items == row).mean()) < 1e-6


def test_corpus_negatives_are_the_items_shown_by_the_cutoff_or_listed_by_the_end_of_the_window(
    period: TrainingPeriod, settings: Settings
) -> None:
    """Half of the catalogue is listed day by day: also an unsold item is in the corpus, from its day on."""
    days = [None if number % 2 else START + timedelta(days=number / 3) for number in range(len(period.items))]
    quiet = period.events.filter(~pl.col("item_id").is_in(["i000", "i001"]))
    listed = period.items.with_columns(listed_from=pl.Series(days, dtype=pl.Datetime("us", "UTC")))
    prepared = prepare(replace(period, events=quiet, items=listed), settings)
    events = prepared.dataset.log
    sizes = set()
    for cell in batches_of(prepared).cells:
        cutoff = prepared.examples.cutoff[cell.rows[0]]
        shown = set(events.item[events.seconds < cutoff].tolist())
        end = cutoff + WINDOW_DAYS * DAY
        feed = {row for row, day in enumerate(days) if day is None or day.timestamp() < end}
        assert set(cell.pool.tolist()) == shown | feed
        assert {0, 1} <= feed
        assert set(prepared.examples.item[cell.rows]) <= shown | feed
        sizes.add(len(shown | feed))
    assert len(sizes) > 1


def test_the_same_seed_and_epoch_give_the_same_batches(prepared: Prepared) -> None:
    def fingerprint(seed: int, epoch: int) -> list[tuple[list[int], list[bool]]]:
        batches = batches_of(prepared, dropout=0.5, seed=seed)
        batches.epoch = epoch
        return [(batch.candidate_rows.tolist(), batch.context.present.tolist()) for batch in batches]

    first = fingerprint(0, 0)
    assert first == fingerprint(0, 0)
    assert first != fingerprint(0, 1)
    assert first != fingerprint(1, 0)


def test_each_row_finds_its_own_user_context_and_positives(prepared: Prepared) -> None:
    """Histories stand in order of length; ``state_of_row`` leads back to the row's own history."""
    numbered = replace(prepared.examples, weight=np.arange(len(prepared.examples), dtype=np.float32))
    batches = batches_of(replace(prepared, examples=numbered))
    dataset, items = prepared.dataset, len(prepared.dataset.features)
    for batch in batches:
        example = numbered.take(batch.weight.numpy().astype(int))
        last_content = newest_content(batch.events)
        lengths = batch.events.lengths[batch.state_of_row]
        slices = newest(dataset.log, example.user, example.history_end, 12)
        assert lengths.tolist() == slices.lengths.tolist()
        content = prepared.folds.content[prepared.folds.fold_of_user[example.user[0]]]
        newest_item = torch.from_numpy(content[dataset.log.item[example.history_end - 1]])
        torch.testing.assert_close(last_content[batch.state_of_row], newest_item)
        assert batch.demographics.tolist() == dataset.demographics[example.user].tolist()
        subjects = prepared.subjects[batch.weight.numpy().astype(int)]
        assert batch.context.present.tolist() == subject_context(subjects, dataset.features).present.tolist()
        assert (np.diff(batch.positive_keys) >= 0).all()
        for group in torch.unique(batch.group).tolist():
            row = int(torch.nonzero(batch.group == group)[0])
            same = (numbered.user == example.user[row]) & (numbered.cutoff == example.cutoff[row])
            own = batch.positive_keys[batch.positive_keys // items == group] % items
            assert own.tolist() == sorted(numbered.item[same].tolist())


def test_histories_end_before_the_cutoff(prepared: Prepared) -> None:
    examples, log = prepared.examples, prepared.dataset.log
    assert (log.seconds[examples.history_end - 1] < examples.cutoff).all()
    following = np.minimum(examples.history_end, log.events - 1)
    same_user = following < log.offsets[examples.user + 1]
    assert (log.seconds[following] >= examples.cutoff)[same_user].all()


def test_context_is_dropped_as_often_as_is_set(prepared: Prepared) -> None:
    with_context = (prepared.subjects >= 0).mean()
    for dropout in (0.0, 0.5, 1.0):
        present = np.concatenate([batch.context.present.numpy() for batch in batches_of(prepared, dropout=dropout)])
        assert abs(present.mean() - with_context * (1 - dropout)) < 0.06


def test_statistics_of_candidates_are_as_of_the_cutoff(prepared: Prepared) -> None:
    numbered = replace(prepared.examples, weight=np.arange(len(prepared.examples), dtype=np.float32))
    for batch in batches_of(replace(prepared, examples=numbered)):
        cutoff = float(numbered.cutoff[int(batch.weight[0])])
        expected = prepared.dataset.statistics.at(cutoff)[batch.candidate_rows.numpy()]
        np.testing.assert_array_equal(batch.candidates.statistics.numpy(), expected)


def lengths_tell_the_item() -> Prepared:
    """Half of the users have ten events and buy one of the popular items, the others have two and buy a rare one."""
    random = np.random.default_rng(0)
    rows: list[Event] = []
    for number in range(400):
        user, events = f"u{number:03d}", 10 if number % 2 else 2
        rows += [(user, 1 + event / 10, "page_visit", f"i{random.integers(40):02d}") for event in range(events)]
        bought = random.integers(4) if number % 2 else 4 + random.integers(36)
        rows.append((user, 12.0, "checkout", f"i{bought:02d}"))
    items = item_frame([f"i{number:02d}" for number in range(40)], embedding=np.eye(40, 8).tolist())
    users = user_frame([f"u{number:03d}" for number in range(400)])
    period = TrainingPeriod(event_frame(rows), items, users, instant(20), rule(10.0), EVENT_NAMES)
    return prepare(period, small_settings(examples={"cutoffs": 1}, features={"cross_fit_folds": 1}))


def gradient_error(prepared: Prepared, batches: Batches[ItemBatch]) -> float:
    """How far the sampled gradient is from that of the full softmax over the same rows, relative to it."""
    items, users = len(prepared.dataset.features), prepared.dataset.log.users
    cosine = torch.rand(users, items, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sampled, full = cosine.clone().requires_grad_(), cosine.clone().requires_grad_()
    sampled_loss, full_loss = torch.zeros(()), torch.zeros(())
    for epoch in range(60):
        batches.epoch = epoch
        for batch in batches:
            rows = batch.weight.numpy().astype(int)
            user, item = torch.from_numpy(prepared.examples.user[rows]), torch.from_numpy(prepared.examples.item[rows])
            expected = expected_count(batch.share, len(rows), len(batch.candidate_rows) - len(rows), batch.corpus)
            hits = accidental_hits(batch.candidate_rows, batch.group, batch.positive_keys, items)
            sampled_loss = sampled_loss + sampled_softmax(
                sampled[user[:, None], batch.candidate_rows[None]] / 0.4,
                expected.log(),
                hits=hits,
                weight=torch.ones(len(rows)),
                alpha_positive=0.0,
                alpha_negative=1.0,
            )
            full_loss = full_loss + functional.cross_entropy(full[user] / 0.4, item)
    (one,) = torch.autograd.grad(sampled_loss, [sampled])
    (other,) = torch.autograd.grad(full_loss, [full])
    return float((one - other).norm() / other.norm())


def test_the_order_by_length_does_not_bias_the_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short and long histories attend apart, but stay in one batch: the in-batch negatives of both are drawn from
    everybody's positives. Batches of like lengths, as sorting for speed would make them, are biased."""
    prepared = lengths_tell_the_item()
    assert len(prepared.examples) == 400
    numbered = replace(prepared, examples=replace(prepared.examples, weight=np.arange(400, dtype=np.float32)))
    batches = batches_of(numbered, batch_size=100, corpus_negatives=50)
    assert all(len(batch.events.lengths.unique()) > 1 for batch in batches)
    mixed = gradient_error(prepared, batches)
    lengths = numbered.examples.history_end - prepared.dataset.log.offsets[numbered.examples.user]

    def of_like_lengths(_: EpochPlan, rows: NDArray[np.int64], random: np.random.Generator) -> list[NDArray[np.int64]]:
        order = np.lexsort((random.random(len(rows)), lengths[rows]))
        return np.array_split(rows[order], 4)

    monkeypatch.setattr(EpochPlan, "draw", of_like_lengths)
    biased = gradient_error(prepared, batches)
    assert mixed < 0.1, (mixed, biased)
    assert biased > 2 * mixed, (mixed, biased)

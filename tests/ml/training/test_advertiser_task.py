"""What the advertiser model counts as a positive, what its batches hold, what it learns."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ml.training.fit
from ml.evaluation.advertiser_queries import advertiser_queries, query_lists
from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
    advertiser_examples,
    advertiser_settings,
    cross_fitted,
)
from ml.examples.nothing_to_learn import NothingToLearn
from ml.examples.pairs import examples_at
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.batched_forward import embed_advertisers
from ml.training.advertiser_task import AdvertiserTask
from ml.training.checkpoints import last_checkpoint
from ml.training.fit import Fit, fit, training_loss
from settings import Objective, Settings
from tests.ml.shops import NAMES, SETTINGS, data_of, period_of
from tests.ml.worlds import (
    instant,
    item_frame,
    small_settings,
)


def test_positives_are_distinct_advertisers_signups_and_repeats_included(shop: AdvertiserPeriod) -> None:
    """Two checkouts at a make one example; a signup has no item; b was visited before; 'unknown' is nobody. The
    manifest forbids repeats of items, not of advertisers; v was not known before the cut-off."""
    data = data_of(shop)
    found = examples_at(data.log, instant(30), shop.rule, NAMES)
    assert data.log.user_ids.gather(found.user).to_list() == ["u", "u", "u"]
    assert data.advertisers.advertiser_ids.gather(found.item).to_list() == ["a", "b", "c"]
    assert [NAMES[code - 1] for code in found.name] == ["checkout", "add_to_cart", "signup"]


@pytest.mark.slow
def test_a_signup_trains(tmp_path: Path) -> None:
    """Whoever looks at left signs up with x, the others with y, neither of which has an item. Nobody converts with left
    or right, which everybody remembers."""
    rows: list[tuple[str, float, str, str | None, str | None]] = []
    for number in range(120):
        side, target = ("left", "x") if number % 2 else ("right", "y")
        day = number / 6
        rows += [(f"u{number:03d}", day, "page_visit", side, side)]
        rows += [(f"u{number:03d}", day + 6, "signup", None, target)]
    known = period_of(
        rows, item_frame(["left", "right"], advertiser_id=["left", "right"], embedding=np.eye(2).tolist())
    )
    data = data_of(known)
    examples = advertiser_examples(known, data, SETTINGS)
    assert len(examples) > 40
    fitted = fit(AdvertiserTask(data, examples, SETTINGS), 30, tmp_path, progress=False)
    queries = advertiser_queries(known, data, instant(20), settings=SETTINGS, maximum=100, index_size=100)
    first = query_lists(fitted.network, queries, SETTINGS, 1).items[:, 0]
    assert len(queries) > 20
    assert (first == queries.positives.items[queries.positives.offsets[:-1]]).mean() > 0.9


def test_batches_hold_in_batch_and_corpus_candidates_with_their_share(
    planted: AdvertiserPeriod, data: AdvertiserData
) -> None:
    """A pool of four of the twelve advertisers, of which each batch draws one; shares are those of the batch's cell."""
    known = planted.until(instant(85))
    crossed, examples = cross_fitted(data, known, SETTINGS), advertiser_examples(known, data, SETTINGS)
    numbered = dataclasses.replace(examples, weight=np.arange(len(examples), dtype=np.float32))
    training = SETTINGS.training.model_copy(update={"corpus_negatives": 1, "batch_size": 16})
    batches = AdvertiserTask(crossed, numbered, SETTINGS.model_copy(update={"training": training})).batches()
    cell_of = {row: cell for cell in batches.cells for row in cell.rows.tolist()}
    seen, drawn = [], set()
    for batch in batches:
        rows = batch.weight.numpy().astype(int)
        cell = cell_of[rows[0]]
        positives, (negative,) = np.split(batch.candidate_rows.numpy(), [len(rows)])
        assert positives.tolist() == examples.item[rows].tolist()
        assert negative in cell.pool
        counts = np.bincount(examples.item[cell.rows], minlength=len(data.advertisers))
        expected = counts[batch.candidate_rows.numpy()] / len(cell.rows)
        np.testing.assert_allclose(batch.share.numpy(), expected, rtol=1e-6)
        assert len(batch.candidates.hashes) == len(rows) + 1
        assert len(cell.pool) == len(set(cell.pool.tolist())) == 4
        assert batch.corpus == len(data.advertisers.known(float(examples.cutoff[rows[0]])))
        seen.append(rows)
        drawn.add((id(cell), int(negative)))
    assert sorted(np.concatenate(seen).tolist()) == list(range(len(examples)))
    assert len(drawn) > len(batches.cells)  # not the same one in every batch of a cell


def test_a_fold_learns_from_its_own_users_under_content_without_them(
    planted: AdvertiserPeriod, data: AdvertiserData
) -> None:
    """The centroids of the advertisers that a batch asks for come from the same graph as the items of its histories."""
    known = planted.until(instant(85))
    crossed, examples = cross_fitted(data, known, SETTINGS), advertiser_examples(known, data, SETTINGS)
    numbered = dataclasses.replace(examples, weight=np.arange(len(examples), dtype=np.float32))
    seen = []
    for batch in AdvertiserTask(crossed, numbered, SETTINGS).batches():
        rows = batch.weight.numpy().astype(int)
        (fold,) = np.unique(crossed.folds.fold_of_user[examples.user[rows]])
        content = crossed.folds.content[fold]
        profiles = (
            data.advertisers.under(content).at(float(examples.cutoff[rows[0]])).take(batch.candidate_rows.numpy())
        )
        np.testing.assert_array_equal(batch.candidates.content.numpy(), profiles.content)
        events = batch.events.content[batch.events.distinct_item]
        both = torch.cat([torch.from_numpy(content), torch.from_numpy(crossed.folds.cold_content[fold])])
        assert (torch.cdist(events, both).amin(dim=1) < 1e-3).all()
        seen.append(rows)
    assert sorted(np.concatenate(seen).tolist()) == list(range(len(examples)))
    assert len(crossed.folds.content) == SETTINGS.features.cross_fit_folds > 1
    assert not np.allclose(crossed.folds.content[0], crossed.folds.content[1])


def test_every_advertiser_of_the_window_is_a_positive_under_any_objective_of_the_item_model() -> None:
    asked = advertiser_settings(small_settings(examples={"objective": "next_action"}))
    assert asked.examples.objective is Objective.all_action


@pytest.mark.parametrize("corpus_negatives", [0, 4096])
def test_log_q_estimates_the_full_softmax(
    planted: AdvertiserPeriod, data: AdvertiserData, fitted: Fit[AdvertiserNetwork], corpus_negatives: int
) -> None:
    """The loss of large batches is that of the softmax over all advertisers of the cut-off; without the correction it
    is far from it. (``tests.ml.training.test_loss`` shows the convergence of the gradient without corpus negatives.)"""
    one = SETTINGS.model_copy(update={"examples": SETTINGS.examples.model_copy(update={"cutoffs": 1})})
    examples = advertiser_examples(planted.until(instant(85)), data, one)
    copies = examples.take(np.tile(np.arange(len(examples)), 8))
    task = AdvertiserTask(data, copies, _with_batch(len(copies), corpus_negatives))
    batches = task.batches()
    batch = next(iter(batches))
    network = copy.deepcopy(fitted.network).eval()
    with torch.no_grad():
        network.log_temperature.fill_(np.log(0.2))  # at which no softmax is so sure that nothing is left to compare
        sampled = float(training_loss(task, network, batch))
        uncorrected = dataclasses.replace(task, settings=task.settings.with_value("training.alpha_negative", 0.0))
        plain = float(training_loss(uncorrected, network, batch))
        states = network.encoder(batch.events)[batch.state_of_row]
        users = network.head(states, batch.demographics)
        (cell,) = batches.cells
        profiles = data.advertisers.at(float(examples.cutoff[0])).take(cell.candidates)
        logits = users @ torch.from_numpy(embed_advertisers(network, profiles)).T / network.temperature
        column = torch.from_numpy(np.searchsorted(cell.candidates, batch.candidate_rows[: len(users)].numpy()))
        own = torch.zeros_like(logits, dtype=torch.bool)
        for row, group in enumerate(batch.group.tolist()):  # the user's other positives are no negatives
            mine = batch.positive_keys[batch.positive_keys // len(data.advertisers) == group] % len(data.advertisers)
            own[row, torch.from_numpy(np.searchsorted(cell.candidates, mine.numpy()))] = True
            own[row, column[row]] = False
        logits = logits.masked_fill(own, float("-inf"))
        losses = logits.logsumexp(1) - logits.gather(1, column[:, None])[:, 0]
        full = float((losses * batch.weight).sum() / batch.weight.sum())
    assert sampled == pytest.approx(full, rel=0.1)
    assert abs(plain - full) > 3 * abs(sampled - full)


def _with_batch(size: int, corpus_negatives: int) -> Settings:
    training = SETTINGS.training.model_copy(
        update={"batch_size": size, "epoch_examples": size, "corpus_negatives": corpus_negatives}
    )
    model = SETTINGS.model.model_copy(update={"content_dropout": 0.0})
    return SETTINGS.model_copy(update={"training": training, "model": model})


def test_nothing_to_learn_from_is_said(shop: AdvertiserPeriod, tmp_path: Path) -> None:
    data = data_of(shop)
    none = advertiser_examples(shop, data, SETTINGS).take(np.zeros(0, np.int64))
    with pytest.raises(NothingToLearn, match=r"advertiser_id.*positive_events"):
        fit(AdvertiserTask(data, none, SETTINGS), 1, tmp_path)


@pytest.mark.slow
def test_a_fit_resumed_at_an_epochs_end_equals_one_that_was_not_interrupted(
    planted: AdvertiserPeriod, data: AdvertiserData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = advertiser_examples(planted.until(instant(85)), data, SETTINGS)
    task = AdvertiserTask(data, examples, SETTINGS)
    steps, ran = len(task.batches()), 0

    def fitted(directory: Path, resume: Path | None = None) -> Fit[AdvertiserNetwork]:
        return fit(task, 3, directory, progress=False, resume=resume)

    def killed(*arguments: Any) -> torch.Tensor:
        nonlocal ran
        ran += 1
        if ran > steps + 1:
            raise KeyError("the process is gone")
        return training_loss(*arguments)

    whole = fitted(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(ml.training.fit, "training_loss", killed)
        with pytest.raises(KeyError):
            fitted(tmp_path / "parts")
    torch.manual_seed(99)
    resumed = fitted(tmp_path / "parts", last_checkpoint(tmp_path / "parts"))
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, rtol=0, atol=0, msg=name)

"""The advertiser model: what it says of an advertiser, what counts as a positive, what it learns, what is reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import ml.advertisers.training
from ml.advertisers.artifact import AdvertiserArtifact, advertiser_embeddings, candidates
from ml.advertisers.inference import embed_advertisers, query_lists
from ml.advertisers.learning import (
    AdvertiserData,
    AdvertiserPeriod,
    AdvertiserQueries,
    NothingToLearn,
    advertiser_data,
    advertiser_examples,
    advertiser_queries,
    advertiser_settings,
    cross_fitted,
    sampled_index,
)
from ml.advertisers.report import MODEL, RECENT_ADVERTISERS, AdvertiserComparison, baseline_lists, measure_advertisers
from ml.advertisers.training import AdvertiserBatches, AdvertiserFit, advertiser_loss, fit_advertisers
from ml.checkpoints import last_checkpoint
from ml.examples import examples_at
from ml.hashing import bucket
from ml.learning import TrainingPeriod
from settings import Objective, Settings
from tests.ml.test_leakage import altered_future, assert_equal, exactly_at_the_cut, without_future
from tests.ml.worlds import (
    EVENT_NAMES,
    event_frame,
    instant,
    item_frame,
    planted_period,
    rule,
    small_settings,
    user_frame,
)

NAMES = [*EVENT_NAMES, "signup"]
CUT = 60.0  # day
SETTINGS = advertiser_settings(
    small_settings(advertisers={"batch_size": 128, "epoch_examples": 2000}, features={"category_buckets": 64})
)


def period_of(rows: list[tuple[str, float, str, str | None, str | None]], items: pl.DataFrame) -> AdvertiserPeriod:
    """Events as (user, day, name, item, advertiser) of 40 days; conversions count for 10 days."""
    ordered = sorted(rows, key=lambda row: (row[0], row[1]))
    events = event_frame([row[:4] for row in ordered]).with_columns(
        advertiser_id=pl.Series([row[4] for row in ordered], dtype=pl.String)
    )
    counted = dataclasses.replace(rule(10.0, repeats_count=False), event_names=("checkout", "add_to_cart", "signup"))
    users = user_frame(sorted({row[0] for row in rows}))
    return AdvertiserPeriod.of(TrainingPeriod(events, items, users, instant(40), counted, NAMES), "unknown")


SHOP = item_frame(
    ["i1", "i2", "i3", "i4", "i5"],
    advertiser_id=["a", "a", "a", "b", "unknown"],
    category=["Home > Chairs", "Home > Chairs", "Home > Lamps", None, "Home"],
    price=[10.0, 40.0, None, 40.0, 1.0],
    embedding=[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]],
)
NO_MATTER = item_frame(["an item of nobody"])
VISITS: list[tuple[str, float, str, str | None, str | None]] = [
    ("u", 1, "page_visit", "i1", "a"),
    ("u", 2, "page_visit", "i2", None),  # the item's advertiser stands in
    ("u", 3, "page_visit", "i4", "b"),
    ("u", 20, "page_visit", "i3", "a"),
    ("u", 31, "checkout", "i1", "a"),
    ("u", 32, "checkout", "i2", "a"),
    ("u", 33, "signup", None, "c"),
    ("u", 34, "add_to_cart", "i5", "unknown"),
    ("u", 35, "add_to_cart", "i4", "b"),
    ("v", 33, "signup", None, "c"),
]


@pytest.fixture
def shop() -> AdvertiserPeriod:
    return period_of(VISITS, SHOP)


def data_of(known: AdvertiserPeriod) -> AdvertiserData:
    return advertiser_data(known, SETTINGS, known.period.event_names)


def test_the_profile_of_an_advertiser_by_hand(shop: AdvertiserPeriod) -> None:
    """At day 10 advertiser a has items i1 and i2, from day 20 on i3, too."""
    data = data_of(shop)
    assert data.advertisers.advertiser_ids.to_list() == ["a", "b", "c"]
    early, late = data.advertisers.at(instant(10)), data.advertisers.at(instant(21))
    home, chairs, lamps = (bucket(node, 64, 0) for node in ("Home", "Home > Chairs", "Home > Lamps"))
    assert early.category.toarray()[0, [home, chairs, lamps]].tolist() == [1, 1, 0]
    np.testing.assert_allclose(late.category.toarray()[0, [home, chairs, lamps]], [1, 2 / 3, 1 / 3], rtol=1e-6)
    assert late.category.toarray()[[1, 2]].sum() == 0  # no category given, no item at all
    content = data.dataset.features.content  # [graph ; given]
    np.testing.assert_allclose(early.content[0], content[:2].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(late.content[0], content[:3].mean(axis=0), rtol=1e-6)
    assert not np.allclose(early.content[0], late.content[0])
    np.testing.assert_allclose(np.expm1(late.size[:, 0]), [3, 1, 0], rtol=1e-6)
    basis = data.dataset.basis
    log_prices = (np.log1p([10.0, 40.0]) - basis.price_mean) / basis.price_deviation
    np.testing.assert_allclose(late.price[0], [log_prices.mean(), log_prices.std(), 1], rtol=1e-5)
    assert late.price[2].tolist() == [0, 0, 0]


def test_statistics_count_every_event_of_an_advertiser_with_or_without_an_item(shop: AdvertiserPeriod) -> None:
    advertisers = data_of(shop).advertisers
    all_time = len(SETTINGS.features.statistics_windows_days)
    assert np.expm1(advertisers.at(instant(33.5)).statistics[:, all_time]).round().tolist() == [5, 1, 2]
    assert np.expm1(advertisers.at(instant(3)).statistics[:, all_time]).round().tolist() == [2, 0, 0]
    assert advertisers.known(instant(33)).tolist() == [0, 1]
    assert advertisers.known(instant(33.5)).tolist() == [0, 1, 2]


def test_positives_are_distinct_advertisers_signups_and_repeats_included(shop: AdvertiserPeriod) -> None:
    """Two checkouts at a make one example; a signup has no item; b was visited before; 'unknown' is nobody. The
    manifest forbids repeats of items, not of advertisers; v was not known before the cut-off."""
    data = data_of(shop)
    found = examples_at(data.log, instant(30), shop.rule, NAMES)
    assert data.log.user_ids.gather(found.user).to_list() == ["u", "u", "u"]
    assert data.advertisers.advertiser_ids.gather(found.item).to_list() == ["a", "b", "c"]
    assert [NAMES[code - 1] for code in found.name] == ["checkout", "add_to_cart", "signup"]


def test_a_signup_trains(tmp_path: Path) -> None:
    """Whoever looks at left signs up with x, the others with y, neither of which has an item."""
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
    fitted = fit_advertisers(data, examples, SETTINGS, 30, tmp_path, progress=False)
    queries = advertiser_queries(known, data, instant(20), SETTINGS, 100, 100)
    first = query_lists(fitted.network, queries, SETTINGS, 1).items[:, 0]
    assert len(queries) > 20
    assert (first == queries.positives.items[queries.positives.offsets[:-1]]).mean() > 0.9


@pytest.fixture(scope="module")
def planted() -> AdvertiserPeriod:
    """Each kind of items has an advertiser, which no event names."""
    period = planted_period()
    nameless = period.events.with_columns(advertiser_id=pl.lit(None, pl.String))
    return AdvertiserPeriod.of(dataclasses.replace(period, events=nameless), "unknown")


@pytest.fixture(scope="module")
def data(planted: AdvertiserPeriod) -> AdvertiserData:
    return data_of(planted.until(instant(85)))


@pytest.fixture(scope="module")
def fitted(planted: AdvertiserPeriod, data: AdvertiserData, tmp_path_factory: pytest.TempPathFactory) -> AdvertiserFit:
    known = planted.until(instant(85))
    crossed, examples = cross_fitted(data, known, SETTINGS), advertiser_examples(known, data, SETTINGS)
    return fit_advertisers(crossed, examples, SETTINGS, 8, tmp_path_factory.mktemp("fit"), progress=False)


@pytest.fixture(scope="module")
def queries(planted: AdvertiserPeriod, data: AdvertiserData) -> AdvertiserQueries:
    return advertiser_queries(planted, data, instant(85), SETTINGS, 1000, 1000)


@pytest.mark.parametrize("change", [without_future, altered_future, exactly_at_the_cut])
def test_all_that_is_prepared_ignores_the_future(
    planted: AdvertiserPeriod, change: Callable[[TrainingPeriod], TrainingPeriod]
) -> None:
    """Also what is known of an advertiser at an instant within the period."""
    changed = dataclasses.replace(planted, period=change(planted.period))
    before, after = (data_of(each.until(instant(CUT))) for each in (planted, changed))
    for day in (CUT / 2, CUT):
        one, other = before.advertisers.at(instant(day)), after.advertisers.at(instant(day))
        np.testing.assert_array_equal(one.category.toarray(), other.category.toarray())
        assert_equal(dataclasses.replace(one, category=None), dataclasses.replace(other, category=None), "profiles")
    assert_equal(
        advertiser_examples(planted.until(instant(CUT)), before, SETTINGS),
        advertiser_examples(changed.until(instant(CUT)), after, SETTINGS),
        "examples",
    )


def test_a_profile_within_the_period_ignores_what_comes_after_it(planted: AdvertiserPeriod) -> None:
    """Training reads profiles at cut-offs long before the period's end, under one basis."""
    whole = data_of(planted)
    cut = planted.until(instant(CUT))
    earlier = advertiser_data(cut, SETTINGS, EVENT_NAMES, whole.dataset.basis)
    one, other = whole.advertisers.at(instant(CUT)), earlier.advertisers.at(instant(CUT))
    np.testing.assert_array_equal(one.content, other.content)
    np.testing.assert_array_equal(one.size, other.size)
    np.testing.assert_array_equal(one.price, other.price)
    np.testing.assert_array_equal(one.statistics, other.statistics)
    np.testing.assert_array_equal(one.category.toarray(), other.category.toarray())


def test_batches_hold_in_batch_candidates_with_their_share(planted: AdvertiserPeriod, data: AdvertiserData) -> None:
    examples = advertiser_examples(planted.until(instant(85)), data, SETTINGS)
    batches = AdvertiserBatches(data, examples, SETTINGS)
    seen = 0
    for batch in batches:
        rows = len(batch.weight)
        seen += rows
        assert len(batch.candidate_rows) == len(batch.candidates.hashes) == rows
        cell = next(each for each in batches.cells if np.isin(batch.candidate_rows, each.positives).all())
        assert cell.share.sum() == pytest.approx(1)
        assert (batch.share > 0).all()
    assert seen == len(examples)


def test_a_fold_learns_from_its_own_users_under_content_without_them(
    planted: AdvertiserPeriod, data: AdvertiserData
) -> None:
    """The centroids of the advertisers that a batch asks for come from the same graph as the items of its histories."""
    known = planted.until(instant(85))
    crossed, examples = cross_fitted(data, known, SETTINGS), advertiser_examples(known, data, SETTINGS)
    numbered = dataclasses.replace(examples, weight=np.arange(len(examples), dtype=np.float32))
    seen = []
    for batch in AdvertiserBatches(crossed, numbered, SETTINGS):
        rows = batch.weight.numpy().astype(int)
        (fold,) = np.unique(crossed.folds.fold_of_user[examples.user[rows]])
        content = crossed.folds.content[fold]
        profiles = data.advertisers.under(content).at(float(examples.cutoff[rows[0]])).take(examples.item[rows])
        np.testing.assert_array_equal(batch.candidates.dense[:, : content.shape[1]].numpy(), profiles.content)
        events = torch.cat([chunk.content[chunk.valid] for chunk in batch.chunks])
        both = torch.cat([torch.from_numpy(content), torch.from_numpy(crossed.folds.cold_content[fold])])
        assert (torch.cdist(events, both).amin(dim=1) < 1e-3).all()
        seen.append(rows)
    assert sorted(np.concatenate(seen).tolist()) == list(range(len(examples)))
    assert len(crossed.folds.content) == SETTINGS.features.cross_fit_folds > 1
    assert not np.allclose(crossed.folds.content[0], crossed.folds.content[1])


def test_every_advertiser_of_the_window_is_a_positive_under_any_objective_of_the_item_model() -> None:
    asked = advertiser_settings(small_settings(examples={"objective": "next_action"}))
    assert asked.examples.objective is Objective.all_action


def test_in_batch_log_q_estimates_the_full_softmax(
    planted: AdvertiserPeriod, data: AdvertiserData, fitted: AdvertiserFit
) -> None:
    """The loss of large batches is that of the softmax over all advertisers of the cut-off; without the correction it
    is far from it. (``tests.ml.test_loss`` shows the convergence of the gradient without corpus negatives.)"""
    one = SETTINGS.model_copy(update={"examples": SETTINGS.examples.model_copy(update={"cutoffs": 1})})
    examples = advertiser_examples(planted.until(instant(85)), data, one)
    copies = examples.take(np.tile(np.arange(len(examples)), 8))
    batches = AdvertiserBatches(data, copies, _with_batch(len(copies)))
    batch = next(iter(batches))
    network = fitted.network.eval()
    with torch.no_grad():
        sampled = float(advertiser_loss(network, batch, SETTINGS.training, len(data.advertisers)))
        uncorrected = SETTINGS.training.model_copy(update={"alpha_negative": 0.0})
        plain = float(advertiser_loss(network, batch, uncorrected, len(data.advertisers)))
        states = torch.cat([network.encoder(chunk) for chunk in batch.chunks])[batch.state_of_row]
        users = network.head(states, batch.demographics)
        (cell,) = batches.cells
        profiles = data.advertisers.at(float(examples.cutoff[0])).take(cell.positives)
        logits = users @ torch.from_numpy(embed_advertisers(network, profiles)).T / network.temperature
        column = torch.from_numpy(np.searchsorted(cell.positives, batch.candidate_rows.numpy()))
        own = torch.zeros_like(logits, dtype=torch.bool)
        for row, group in enumerate(batch.group.tolist()):  # the user's other positives are no negatives
            mine = batch.positive_keys[batch.positive_keys // len(data.advertisers) == group] % len(data.advertisers)
            own[row, torch.from_numpy(np.searchsorted(cell.positives, mine.numpy()))] = True
            own[row, column[row]] = False
        logits = logits.masked_fill(own, float("-inf"))
        losses = logits.logsumexp(1) - logits.gather(1, column[:, None])[:, 0]
        full = float((losses * batch.weight).sum() / batch.weight.sum())
    assert sampled == pytest.approx(full, rel=0.1)
    assert abs(plain - full) > 3 * abs(sampled - full)


def _with_batch(size: int) -> Settings:
    training = SETTINGS.training.model_copy(update={"batch_size": size, "epoch_examples": size})
    model = SETTINGS.model.model_copy(update={"content_dropout": 0.0})
    return SETTINGS.model_copy(update={"training": training, "model": model})


def test_recall_on_a_hand_made_catalogue(shop: AdvertiserPeriod) -> None:
    """u goes on with a (known), b (known) and c (new, and unknown to everybody at day 30)."""
    data = data_of(shop.until(instant(30)))
    queries = advertiser_queries(shop, data, instant(30), SETTINGS, 10, 10)
    assert queries.index.tolist() == [0, 1]  # c has neither event nor item before day 30
    assert queries.positives.items.tolist() == [0, 1, -1]
    assert queries.repeated.tolist() == [True, True, False]
    lists = baseline_lists(queries, 10.0, 100)
    assert lists["popularity"].items[0, :3].tolist() == [0, 1, -1]  # three events of a, one of b
    assert lists[RECENT_ADVERTISERS].items[0, :2].tolist() == [0, 1]  # a on day 20, b on day 3
    figures = measure_advertisers(AdvertiserComparison(queries, lists, 2), NAMES, [1, 10], 5, 0)
    assert figures.metrics["popularity"].recall == {1: pytest.approx(1 / 3)}  # an index of two has no ten
    novelty = dict(figures.by_novelty["popularity"].select("segment", "recall").rows())
    assert novelty == {"known": 1.0, "new": 0.0}
    conversion = dict(figures.by_conversion["popularity"].select("segment", "recall").rows())
    assert conversion == {"add_to_cart": 1.0, "checkout": 1.0, "signup": 0.0}


def test_recent_advertisers_come_in_the_order_of_their_newest_event_then_the_popular_ones() -> None:
    rows: list[tuple[str, float, str, str | None, str | None]] = [
        ("u", 1, "page_visit", None, "a"),
        ("u", 2, "page_visit", None, "b"),
        ("u", 3, "page_visit", None, "a"),
        ("v", 4, "page_visit", None, "d"),
        ("v", 5, "page_visit", None, "c"),
        ("w", 6, "page_visit", None, "c"),
        ("u", 31, "signup", None, "d"),
    ]
    known = period_of(rows, NO_MATTER)
    queries = advertiser_queries(known, data_of(known.until(instant(30))), instant(30), SETTINGS, 10, 10)
    shown = baseline_lists(queries, 40.0, 4)[RECENT_ADVERTISERS].items[0]
    assert queries.advertisers.advertiser_ids.gather(shown).to_list() == ["a", "b", "c", "d"]


def test_the_model_beats_popularity_where_histories_tell_the_future(
    fitted: AdvertiserFit, queries: AdvertiserQueries
) -> None:
    lists = {**baseline_lists(queries, 15.0, 100), MODEL: query_lists(fitted.network, queries, SETTINGS, 100)}
    figures = measure_advertisers(AdvertiserComparison(queries, lists, 12), EVENT_NAMES, [1], 0, 0)
    assert figures.metrics[MODEL].recall[1] > 0.8 > 3 * figures.metrics["popularity"].recall[1]


@pytest.mark.parametrize(("size", "expected"), [(50, 50), (3, 5), (1000, 100)])
def test_the_sampled_index_has_the_stated_size_and_every_known_positive(size: int, expected: int) -> None:
    known, positives = np.arange(0, 200, 2), np.array([-1, 0, 2, 4, 7, 100, 198])  # 7 was not known
    index = sampled_index(known, positives, size, seed=0)
    assert len(index) == len(set(index.tolist())) == expected
    assert np.isin([0, 2, 4, 100, 198], index).all()
    assert np.isin(index, known).all()
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(index, sampled_index(known, positives, size, seed=0))


def test_an_artefact_answers_as_before_it_was_saved(
    planted: AdvertiserPeriod, data: AdvertiserData, fitted: AdvertiserFit, tmp_path: Path
) -> None:
    artifact = AdvertiserArtifact(fitted.network, data.dataset.basis, SETTINGS, EVENT_NAMES, instant(85))
    artifact.save(tmp_path / "model")
    loaded = AdvertiserArtifact.load(tmp_path / "model")
    period = planted.period
    one, other = (
        advertiser_embeddings(each, period.events, period.items, instant(85), "unknown") for each in (artifact, loaded)
    )
    assert_frame_equal(one, other, abs_tol=1e-5)
    assert one["advertiser_id"].equals(planted.advertiser_ids, check_names=False)
    assert one["items"].max() == 20
    lengths = np.linalg.norm(np.array(one["embedding"].to_list()), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_candidates_are_the_nearest_advertisers_best_first() -> None:
    index = pl.DataFrame({"advertiser_id": ["a", "b", "c"]})
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[1, 0], [0, 1]], np.float32)
    found = candidates(pl.Series(["u", "v"]), users, index, vectors, depth=2)
    assert found["user_id"].to_list() == ["u", "v"]
    assert found["advertiser_ids"].to_list() == [["a", "c"], ["b", "c"]]
    np.testing.assert_allclose(found["scores"].to_list(), [[1, 0.6], [1, 0.8]], rtol=1e-6)
    none = candidates(pl.Series([], dtype=pl.String), np.zeros((0, 2), np.float32), index, vectors, depth=2)
    assert len(none) == 0


def test_nothing_to_learn_from_is_said(shop: AdvertiserPeriod, tmp_path: Path) -> None:
    data = data_of(shop)
    none = advertiser_examples(shop, data, SETTINGS).take(np.zeros(0, np.int64))
    with pytest.raises(NothingToLearn, match=r"advertiser_id.*positive_events"):
        fit_advertisers(data, none, SETTINGS, 1, tmp_path)


def test_a_fit_resumed_at_an_epochs_end_equals_one_that_was_not_interrupted(
    planted: AdvertiserPeriod, data: AdvertiserData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = advertiser_examples(planted.until(instant(85)), data, SETTINGS)
    steps, ran = len(AdvertiserBatches(data, examples, SETTINGS)), 0

    def fitted(directory: Path, resume: Path | None = None) -> AdvertiserFit:
        return fit_advertisers(data, examples, SETTINGS, 3, directory, progress=False, resume=resume)

    def killed(*arguments: Any) -> torch.Tensor:
        nonlocal ran
        ran += 1
        if ran > steps + 1:
            raise KeyError("the process is gone")
        return advertiser_loss(*arguments)

    whole = fitted(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(ml.advertisers.training, "advertiser_loss", killed)
        with pytest.raises(KeyError):
            fitted(tmp_path / "parts")
    torch.manual_seed(99)
    resumed = fitted(tmp_path / "parts", last_checkpoint(tmp_path / "parts"))
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_a_single_advertiser_is_reported_at_one() -> None:
    """A shop's own log: the index holds nothing to confuse it with."""
    rows: list[tuple[str, float, str, str | None, str | None]] = [
        ("u", 1, "page_visit", None, "a"),
        ("u", 31, "signup", None, "a"),
    ]
    known = period_of(rows, NO_MATTER)
    queries = advertiser_queries(known, data_of(known.until(instant(30))), instant(30), SETTINGS, 10, 10)
    lists = {"popularity": baseline_lists(queries, 10.0, 100)["popularity"]}
    figures = measure_advertisers(AdvertiserComparison(queries, lists, 1), NAMES, [10, 100], 5, 0)
    assert figures.metrics["popularity"].recall == {1: 1.0}
    assert list(figures.intervals["popularity"]) == [1]

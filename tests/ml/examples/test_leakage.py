"""Nothing that is learnt at an instant depends on what happened at or after it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml.evaluation.queries import newest_window
from ml.examples.period import Prepared, TrainingPeriod, prepare, training_context
from ml.features.content import ContentBasis
from ml.training.item_task import ItemTask
from ml.versions.item_version import ItemVersion
from settings import ContextRecipe, Settings
from tests.ml.worlds import (
    EVENT_NAMES,
    START,
    Event,
    event_frame,
    instant,
    item_frame,
    planted_period,
    rule,
    small_settings,
    user_frame,
)

CUT = 60.0  # day


def after(period: TrainingPeriod, day: float) -> pl.Series:
    return pl.Series(period.events["event_time"].dt.timestamp("us").to_numpy() / 1e6 >= instant(day))


def without_future(period: TrainingPeriod) -> TrainingPeriod:
    return dataclasses.replace(period, events=period.events.filter(~after(period, CUT)))


def altered_future(period: TrainingPeriod) -> TrainingPeriod:
    """After the cut all events are checkouts of other items, and there are users who were never seen before."""
    future = after(period, CUT)
    random = np.random.default_rng(9)
    other = pl.Series(random.choice(period.items["item_id"].to_numpy(), len(period.events)).tolist())
    changed = period.events.with_columns(
        item_id=pl.when(future).then(other).otherwise("item_id"),
        event_name=pl.when(future).then(pl.lit("checkout")).otherwise("event_name"),
        advertiser_id=pl.when(future).then(pl.lit("another")).otherwise("advertiser_id"),
    )
    rows: list[Event] = [(f"a new user {number}", CUT + number / 10, "checkout", "i000") for number in range(50)]
    events = pl.concat([changed, event_frame(rows)]).sort("user_id", "event_time", maintain_order=True)
    return dataclasses.replace(period, events=events)


def exactly_at_the_cut(period: TrainingPeriod) -> TrainingPeriod:
    """One more event a user at the very instant, which is not before it."""
    rows: list[Event] = [(user, CUT, "checkout", "i001") for user in period.users["user_id"]]
    events = pl.concat([period.events, event_frame(rows)]).sort("user_id", "event_time", maintain_order=True)
    return dataclasses.replace(period, events=events)


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    """Every array, frame and value of two dataclasses, by name."""
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name), f"{path}.{field.name}")
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=path)
    elif isinstance(one, pl.DataFrame | pl.Series):
        assert one.equals(other), path
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{path}[{number}]")
    else:
        assert one == other, path


@pytest.mark.parametrize("change", [without_future, altered_future, exactly_at_the_cut])
def test_all_that_is_prepared_ignores_the_future(period: TrainingPeriod, settings: Settings, change: Any) -> None:
    before = prepare(period.until(instant(CUT)), settings)
    assert len(before.examples) > 100
    assert_equal(before, prepare(change(period).until(instant(CUT)), settings), "prepared")
    contexts = [
        training_context(prepare(each.until(instant(CUT)), settings), ContextRecipe.co_engaged)
        for each in (period, change(period))
    ]
    assert_equal(contexts[0], contexts[1], "context")


def test_the_comparison_above_can_fail(period: TrainingPeriod, settings: Settings) -> None:
    with pytest.raises(AssertionError):
        assert_equal(prepare(period, settings), prepare(altered_future(period), settings))


def test_statistics_and_examples_read_nothing_after_their_instant_even_in_a_longer_log(
    period: TrainingPeriod, settings: Settings
) -> None:
    """The statistics of a log that goes on are those of the log cut at the instant: cut-offs in training rely on it."""
    whole, known = prepare(period, settings).dataset, prepare(period.until(instant(CUT)), settings).dataset
    np.testing.assert_array_equal(whole.statistics.at(instant(CUT)), known.statistics.at(instant(CUT)))
    assert whole.log.known_until(instant(CUT)).sum() > len(known.log.user_ids)
    np.testing.assert_array_equal(
        whole.log.known_until(instant(CUT)) - whole.log.offsets[:-1], np.diff(known.log.offsets)
    )


def canary_period() -> TrainingPeriod:
    """A canary sings only after the cut: then it is what everybody buys, in the company of one other item. A third
    item stays unsold for good. The feed lists all three from day 10 on."""
    period = planted_period(users=60, items=48, kinds=4)
    listed = pl.when(pl.col("item_id") >= "i045").then(pl.lit(START + timedelta(days=10)))
    quiet = period.events.filter(pl.col("item_id") < "i045")
    rows: list[Event] = []
    for number in range(60):
        rows += [
            (f"u{number:03d}", CUT + number / 100, "page_visit", "i046"),
            (f"u{number:03d}", CUT + 1 + number / 100, "checkout", "i047"),
        ]
    events = pl.concat([quiet, event_frame(rows)]).sort("user_id", "event_time", maintain_order=True)
    return dataclasses.replace(period, events=events, items=period.items.with_columns(listed_from=listed))


def test_a_canary_that_only_the_future_knows_is_not_heard() -> None:
    settings = small_settings()
    period = canary_period()
    items = period.items["item_id"].to_list()
    canary, companion = items.index("i047"), items.index("i046")
    prepared = prepare(period.until(instant(CUT)), settings)
    statistics = prepare(period, settings).dataset.statistics  # of the longer log
    own = len(settings.features.statistics_windows_days) + 3  # columns of the item itself, before its groups'
    silent = statistics.at(instant(CUT))[[canary, companion, items.index("i045")], :own]
    assert (silent == silent[2]).all()
    assert silent[2, :-2].sum() == silent[2, -1] == 0  # no counts, no events, only an age
    assert (statistics.at(instant(CUT + 5))[canary, :4] > 0).any()
    assert not {"i047", "i046"} & set(prepared.dataset.basis.items["item_id"])
    assert canary not in prepared.examples.item
    assert canary not in prepared.subjects
    heard = prepare(period, settings)
    assert "i047" in set(heard.dataset.basis.items["item_id"])  # so the test above can fail


def test_who_sells_after_the_cut_is_no_other_candidate_or_negative_than_who_never_sells() -> None:
    """The corpus, the candidates and the examples are those of a log that ends at the cut, with or without a future."""
    settings, period = small_settings(), canary_period()
    prepared = prepare(period.until(instant(CUT)), settings)
    asked = newest_window(dataclasses.replace(period, end=instant(CUT + 15)), prepared.dataset, settings)
    rows = [period.items["item_id"].to_list().index(item) for item in ("i045", "i046", "i047")]
    assert set(rows) <= set(asked.queries.candidates.tolist())
    longer = prepare(period, settings).dataset.statistics
    for day in (5, 15, CUT):
        known = prepared.dataset.statistics.listed(instant(day))
        assert known[rows].tolist() == [day > 10] * 3
        assert longer.listed(instant(day)).tolist() == known.tolist()


def test_positives_on_items_that_only_their_sale_makes_known_make_no_example() -> None:
    """The window begins at day 15 and ends at day 30; the feed lists d in it, and c after it."""
    rows: list[Event] = [(f"u{n}", 1.0 + n, "page_visit", "a") for n in range(3)]
    rows += [(f"u{n}", 20.0 + n, "checkout", item) for n in range(3) for item in ("b", "c", "d")]
    listed = [None, None, START + timedelta(days=30), START + timedelta(days=18)]
    items = item_frame(["a", "b", "c", "d"], listed_from=listed)
    one = small_settings(examples={"cutoffs": 1}, features={"cross_fit_folds": 1})
    period = TrainingPeriod(event_frame(rows), items, user_frame([]), instant(30), rule(15.0), EVENT_NAMES)
    assert set(prepare(period, one).examples.item.tolist()) == {1, 3}


def test_attributes_that_only_a_later_catalogue_knows_dont_show_before_it() -> None:
    """Each item's newest version names the category of the item that its buyers buy next."""
    period, settings = planted_period(users=60, items=48, kinds=4), small_settings()
    telling = period.items.with_columns(
        category=pl.format("Answers > {}", "item_id"), advertiser_id="item_id", price=pl.lit(1.0)
    )
    newcomer = item_frame(["i999"], category=["Answers"], listed_from=[START + timedelta(days=CUT + 1)])

    def catalogue(seconds: float) -> pl.DataFrame:
        return pl.concat([telling, newcomer]) if seconds > instant(CUT) else period.items

    dated = dataclasses.replace(period, items=catalogue(period.end), items_at=catalogue)
    told, plain = prepare(dated.until(instant(CUT)), settings), prepare(period.until(instant(CUT)), settings)
    assert_equal(told.dataset.features.category[:-1], plain.dataset.features.category, "category")
    assert_equal(told.dataset.features.advertiser[:-1], plain.dataset.features.advertiser, "advertiser")
    assert_equal(told.dataset.features.price[:-1], plain.dataset.features.price, "price")
    assert told.dataset.features.item_ids.to_list() == dated.items["item_id"].to_list()  # the rows stay
    assert not told.dataset.statistics.listed(instant(CUT))[-1]
    assert not told.dataset.features.category[-1].any()
    assert_equal(told.examples.item, plain.examples.item, "examples")
    with pytest.raises(AssertionError):
        assert_equal(
            prepare(dated, settings).dataset.features.category[:-1], plain.dataset.features.category, "category"
        )


def test_the_content_of_a_basis_follows_the_training_period_only(period: TrainingPeriod, settings: Settings) -> None:
    bases: list[ContentBasis] = [
        prepare(each.until(instant(CUT)), settings).dataset.basis for each in (period, altered_future(period))
    ]
    assert_equal(bases[0], bases[1], "basis")
    later = prepare(period, settings).dataset.basis
    assert not later.items.equals(bases[0].items)


def test_histories_of_examples_end_before_their_cutoff_and_positives_lie_behind_it(prepared: Prepared) -> None:
    examples, log = prepared.examples, prepared.dataset.log
    assert (log.seconds[examples.history_end - 1] < examples.cutoff).all()
    for number in range(0, len(examples), 7):
        future = slice(examples.history_end[number], log.offsets[examples.user[number] + 1])
        assert examples.item[number] in log.item[future]
        assert (log.seconds[future] >= examples.cutoff[number]).all()


def test_a_positive_is_never_its_own_subject(prepared: Prepared) -> None:
    shown = prepared.subjects >= 0
    assert shown.any()
    assert (prepared.subjects[shown] != prepared.examples.item[shown]).all()


def test_validation_is_of_conversions_that_the_model_was_not_prepared_with(
    period: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    """What the contextual model of the reports learns from, and what it is asked after each epoch."""
    [task] = [each.task for each in ItemVersion(period, prepared, settings).comparisons() if each.task.monitor]
    assert isinstance(task, ItemTask)
    assert task.validation is not None
    cutoff = period.end - 15 * 86_400
    prepared, asked = task.prepared, task.validation
    assert prepared.dataset.log.seconds.max() < cutoff
    assert prepared.dataset.statistics.seconds.max() < cutoff
    assert prepared.examples.cutoff.max() <= cutoff - 15 * 86_400 + 1
    assert asked.queries.as_of == cutoff
    log, queries = asked.dataset.log, asked.queries
    assert (log.seconds[queries.history_end - 1] < cutoff).all()
    assert asked.dataset.statistics.seconds.max() < cutoff
    assert_equal(asked.dataset.basis, prepared.dataset.basis)
    future = log.seconds >= cutoff
    assert future.any()  # the positives are there to be found, only not to be learnt from
    assert asked.queries.candidates.tolist() == np.flatnonzero(prepared.dataset.statistics.listed(cutoff)).tolist()


def test_there_is_no_validation_where_nobody_converts(
    period: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    late = pl.Series(period.events["event_time"].dt.timestamp("us").to_numpy() / 1e6 >= period.end - period.window)
    converting = pl.col("event_name").is_in(period.rule.event_names)
    without = dataclasses.replace(period, events=period.events.filter(~(late & converting)))
    assert [each.task.monitor for each in ItemVersion(without, prepared, settings).comparisons()] == [None] * 3


def test_a_user_who_comes_later_has_no_example() -> None:
    rows: list[Event] = [(f"u{n}", 1.0 + n, "page_visit", "a") for n in range(3)]
    rows += [(f"u{n}", 20.0 + n, "checkout", "b") for n in range(3)] + [("late", 21.0, "checkout", "b")]
    period = TrainingPeriod(
        event_frame(rows), item_frame(["a", "b"]), user_frame(["late"]), instant(30), rule(15.0), EVENT_NAMES
    )
    prepared = prepare(period, small_settings())
    users = prepared.dataset.log.user_ids.gather(prepared.examples.user).to_list()
    assert set(users) == {"u0", "u1", "u2"}

"""Clicks and conversions of ads are in histories, and nothing else of a model or a report reads them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml.evaluation.contextual_requests import context_evaluation
from ml.evaluation.model_lists import baseline_lists
from ml.evaluation.model_names import BASELINES
from ml.evaluation.queries import EvaluationSet, Queries, newest_window
from ml.examples.advertiser_period import AdvertiserPeriod, advertiser_data, advertiser_examples
from ml.examples.period import Prepared, TrainingPeriod, examples_to_frame, prepare
from ml.features.event_log import build_event_log
from settings import AD_CLICK, ONSITE_EVENTS, Objective, Settings
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

NAMES = [*EVENT_NAMES, *ONSITE_EVENTS]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return small_settings()


@pytest.fixture(scope="module")
def offsite() -> TrainingPeriod:
    """A log in which repeats do not count, so that an item of the history is neither a positive nor a candidate."""
    period = planted_period(users=60, items=60, kinds=6)
    return dataclasses.replace(period, rule=rule(15.0, repeats_count=False))


@pytest.fixture(scope="module")
def both(offsite: TrainingPeriod) -> TrainingPeriod:
    """The same log in which every user has clicked an ad for each item that they engage with later."""
    first = offsite.events.group_by("user_id").agg(begin=pl.col("event_time").min())
    clicks = (
        offsite.events.join(first, on="user_id")
        .filter(pl.col("event_time") > pl.col("begin"))
        .with_columns(event_time=pl.col("begin") + timedelta(minutes=1), event_name=pl.lit(AD_CLICK))
        .select(offsite.events.columns)
    )
    events = pl.concat([offsite.events, clicks]).sort("user_id", "event_time", maintain_order=True)
    return dataclasses.replace(offsite, events=events, event_names=NAMES)


def prepared_both(
    offsite: TrainingPeriod, both: TrainingPeriod, settings: Settings
) -> tuple[tuple[TrainingPeriod, Prepared], tuple[TrainingPeriod, Prepared]]:
    without, within = (period.until(instant(80)) for period in (offsite, both))
    return (without, prepare(without, settings)), (within, prepare(within, settings))


def own_items(queries: Queries) -> set[tuple[int, int]]:
    assert queries.exclude is not None
    return set(zip(queries.exclude.query_rows.tolist(), queries.exclude.items.tolist(), strict=True))


# Dense all-action draws random events of each user, and an onsite event may be one of these.
@pytest.mark.parametrize("objective", [Objective.all_action, Objective.next_action])
def test_features_and_labels_are_those_of_the_offsite_events(
    offsite: TrainingPeriod, both: TrainingPeriod, settings: Settings, objective: Objective
) -> None:
    settings = settings.with_value("examples.objective", objective.value)
    (_, without), (_, within) = prepared_both(offsite, both, settings)
    assert_frame_equal(within.dataset.basis.to_frame(), without.dataset.basis.to_frame())
    for day in (20, 50, 80):
        assert np.array_equal(within.dataset.statistics.at(instant(day)), without.dataset.statistics.at(instant(day)))
    assert np.array_equal(within.folds.content, without.folds.content)
    first, second = (examples_to_frame(each, NAMES) for each in (without, within))
    columns = ["cutoff", "user_id", "item_id", "event_name", "weight"]
    assert len(first)
    assert_frame_equal(second.select(columns), first.select(columns))
    assert (second["history_events"] > first["history_events"]).any()


def test_baselines_and_own_items_are_those_of_the_offsite_events(
    offsite: TrainingPeriod, both: TrainingPeriod, settings: Settings
) -> None:
    (_, without), (_, within) = prepared_both(offsite, both, settings)
    asked: list[EvaluationSet] = [
        newest_window(period, prepared.dataset, settings) for period, prepared in ((offsite, without), (both, within))
    ]
    first, second = (each.queries for each in asked)
    assert len(first)
    assert np.array_equal(second.user, first.user)
    assert np.array_equal(second.positives.items, first.positives.items)
    assert own_items(second) == own_items(first)
    for model in BASELINES:
        lists = [baseline_lists(model, each, 10).items for each in asked]
        assert np.array_equal(lists[0], lists[1]), model


def test_the_advertiser_model_counts_no_click(
    both: TrainingPeriod, offsite: TrainingPeriod, settings: Settings
) -> None:
    data = [
        advertiser_data(known, settings, known.period.event_names)
        for known in (AdvertiserPeriod.of(offsite), AdvertiserPeriod.of(both))
    ]
    first, second = (each.advertisers.at(instant(90)) for each in data)
    assert np.array_equal(first.statistics, second.statistics)
    examples = [
        advertiser_examples(AdvertiserPeriod.of(period), each, settings)
        for period, each in zip((offsite, both), data, strict=True)
    ]
    assert np.array_equal(examples[0].item, examples[1].item)


def test_a_user_with_nothing_but_a_click_is_learnt_from_and_asked(settings: Settings) -> None:
    rows: list[Event] = [("ann", 1.0, AD_CLICK, "a"), ("ann", 5.0, "checkout", "a"), ("bob", 0.0, "checkout", "b")]
    period = TrainingPeriod(
        event_frame(rows), item_frame(["a", "b"]), user_frame(["ann", "bob"]), instant(20), rule(15.0, False), NAMES
    )
    prepared = prepare(period, settings.with_value("examples.cutoffs", 1).with_value("examples.span_days", 15.0))
    examples = examples_to_frame(prepared, NAMES)
    assert examples.select("user_id", "history_events", "item_id").rows() == [("ann", 1, "a")]


def test_the_history_of_a_request_ends_before_its_own_click(
    offsite: TrainingPeriod, both: TrainingPeriod, settings: Settings
) -> None:
    """A request at noon of day 85 that was clicked, and one of the same user at noon of the day after."""
    user, (subject, item) = "u000", ("i000", "i001")
    noon = [START + timedelta(days=day, hours=12) for day in (85, 86)]
    click = pl.DataFrame([(user, noon[0], AD_CLICK, item, None)], schema=offsite.events.schema, orient="row")
    events = pl.concat([both.events, click]).sort("user_id", "event_time", maintain_order=True)
    period = dataclasses.replace(both, events=events)
    impressions = pl.DataFrame(
        {
            "request_id": ["r1", "r2"],
            "request_time": noon,
            "user_id": user,
            "surface": "related_pins",
            "subject_item_id": subject,
            "query": None,
            "item_id": item,
            "stage": ["clicked", "impressed"],
        },
        schema_overrides={"request_time": pl.Datetime("us", "UTC")},
    )
    prepared = prepare(period.until(instant(80)), settings)
    home_feed = newest_window(period, prepared.dataset, settings)
    evaluation = context_evaluation(home_feed, period, impressions, features=settings.features, maximum=10, seed=0)
    assert evaluation is not None
    assert evaluation.requests["request_id"].to_list() == ["r1", "r2"]
    log, ends = evaluation.asked.dataset.log, evaluation.asked.queries.history_end
    assert log.onsite is not None
    clicked = np.flatnonzero(log.onsite & (log.seconds == instant(85.5)))
    assert len(clicked) == 1
    assert ends[0] <= clicked[0] < ends[1]


def test_an_older_model_knows_no_name_of_an_onsite_event() -> None:
    rows: list[Event] = [("ann", 1.0, AD_CLICK, "a"), ("ann", 2.0, "checkout", "a")]
    log = build_event_log(event_frame(rows), pl.Series(["a"]), EVENT_NAMES, advertiser_buckets=8, advertiser_hashes=1)
    assert log.name.tolist() == [0, EVENT_NAMES.index("checkout") + 1]
    assert log.item.tolist() == [0, 0]
    assert log.offsite.item.tolist() == [-1, 0]

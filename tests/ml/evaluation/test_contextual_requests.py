"""Logged requests as queries: what could not be shown stands in no list, and is missed where it is a positive."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import ml.evaluation.contextual_requests
from ml.evaluation.contextual_requests import ContextEvaluation, HiddenItems, context_evaluation
from ml.evaluation.metrics import evaluate
from ml.evaluation.model_lists import baseline_lists
from ml.evaluation.model_names import BASELINES, ModelName
from ml.evaluation.queries import newest_window
from ml.examples.context import subject_context
from ml.examples.period import Prepared, TrainingPeriod
from settings import Settings
from tests.ml.worlds import START

REQUESTS = 20


def impressions(period: TrainingPeriod) -> pl.DataFrame:
    """Each request beside the item ``i000`` has shown ``i001`` and ``i002``."""
    shown = pl.DataFrame({"item_id": ["i001", "i002"], "stage": "impressed"})
    requests = pl.DataFrame({"request_id": [f"r{row:02}" for row in range(REQUESTS)]}).with_columns(
        user_id=period.users["user_id"].head(REQUESTS),
        request_time=pl.lit(START + timedelta(days=90, hours=12)).dt.cast_time_unit("us"),
        surface=pl.lit("related_pins"),
        subject_item_id=pl.lit("i000"),
        query=pl.lit(None, pl.String),
    )
    return requests.join(shown, how="cross")


def evaluation(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, hidden: HiddenItems | None
) -> ContextEvaluation:
    home_feed = newest_window(period, prepared.dataset, settings)
    found = context_evaluation(
        home_feed, period, impressions(period), features=settings.features, maximum=100, seed=0, hidden_items=hidden
    )
    assert found is not None
    return found


def hide(item_id: str) -> HiddenItems:
    def of(requests: pl.DataFrame, item_ids: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = np.arange(len(requests))
        return rows, np.full(len(rows), item_ids.index_of(item_id))

    return of


def test_a_hidden_item_is_in_no_list_and_is_missed_where_it_is_a_positive(
    period: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    open_, closed = (evaluation(period, prepared, settings, hidden).asked for hidden in (None, hide("i001")))
    size = len(open_.queries.candidates)
    gone = int(np.flatnonzero(closed.queries.candidates == closed.dataset.features.item_ids.index_of("i001"))[0])
    for model in BASELINES:
        lists = baseline_lists(model, closed, size)
        assert not (lists.items == gone).any()
    before, after = (np.sort(asked.queries.positives.items.reshape(-1, 2), axis=1) for asked in (open_, closed))
    assert np.array_equal(before, after)
    recalls = [
        evaluate(baseline_lists(ModelName.popularity, asked, size), asked.queries.positives, size, ks=[size]).recall
        for asked in (open_, closed)
    ]
    assert recalls == [{size: 1.0}, {size: 0.5}]


@pytest.mark.parametrize(("pairs", "expected"), [(3, 3), (REQUESTS, REQUESTS)])
def test_more_hidden_pairs_than_can_be_held_are_of_fewer_requests(
    period: TrainingPeriod,
    prepared: Prepared,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    pairs: int,
    expected: int,
) -> None:
    monkeypatch.setattr(ml.evaluation.contextual_requests, "PAIRS_IN_MEMORY", pairs)
    assert len(evaluation(period, prepared, settings, hide("i001")).requests) == expected
    assert len(evaluation(period, prepared, settings, None).requests) == REQUESTS


def test_baskets_are_no_requests_and_hide_nothing(
    period: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    home_feed = newest_window(period, prepared.dataset, settings)
    found = [
        context_evaluation(
            home_feed, period, None, features=settings.features, maximum=100, seed=0, hidden_items=hidden
        )
        for hidden in (None, hide("i001"))
    ]
    of = [each.asked.queries.exclude for each in found if each]
    assert len(of) == 2
    assert of[0] is not None
    assert of[1] is not None
    assert np.array_equal(of[0].items, of[1].items)


def test_searches_are_queries_of_their_own_surface(
    period: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    """Every second request is a search, of which every second one names nothing that the catalogue has."""
    number = pl.col("request_id").str.slice(1).cast(pl.Int64)
    typed = pl.when(number % 4 == 1).then(pl.lit("K3")).otherwise(pl.lit("----"))
    log = impressions(period).with_columns(
        surface=pl.when(number % 2 == 1).then(pl.lit("search")).otherwise("surface"),
        subject_item_id=pl.when(number % 2 == 0).then("subject_item_id"),
        query=pl.when(number % 2 == 1).then(typed),
    )
    home_feed = newest_window(period, prepared.dataset, settings)
    found = context_evaluation(home_feed, period, log, features=settings.features, maximum=100, seed=0)
    assert found is not None
    context, rows = found.asked.queries.context, np.arange(REQUESTS)
    assert found.requests["surface"].to_list() == ["related_pins", "search"] * (REQUESTS // 2)
    assert np.array_equal(context.subject >= 0, rows % 2 == 0)
    assert np.array_equal(context.present, rows % 4 != 3)
    assert context.topics is not None
    assert np.array_equal(context.topics.category.any(axis=1), rows % 4 == 1)
    features = found.asked.dataset.features
    assert context.topics.category[1].tolist() == features.category[features.item_ids.index_of("i060")].tolist()
    beside = subject_context(context.subject, features)
    assert np.array_equal(context.interests[::2], beside.interests[::2])
    assert found.asked.queries.positives.counts.tolist() == [2] * REQUESTS

"""Relevance, surfaces and differences, on lists written by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.evaluation.answers_by_surface import by_surface, category_overlap, median_relevance
from ml.evaluation.contextual_requests import BASKETS, ContextEvaluation
from ml.evaluation.intervals import paired_ratio
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet, Queries
from ml.evaluation.recall_rows import differences
from ml.evaluation.report_rows import Segment
from ml.examples.context import Context
from ml.retrieval.lists import Positives, RankedLists

PATHS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "category": ["Home > Lamps > Desk", "Home > Lamps > Floor", "Garden > Lamps > Desk", None],
    }
)


def asked_beside(subjects: list[int], positives: Positives) -> EvaluationSet:
    """Queries beside items, over the candidates 3, 2, 1, 0 of the catalogue in ascending order."""
    count = len(subjects)
    queries = Queries(
        user=np.full(count, -1),
        history_end=np.zeros(count, np.int64),
        context=Context(np.array(subjects), np.zeros((count, 1), np.int64), np.zeros((count, 1), np.float32)),
        positives=positives,
        exclude=None,
        candidates=np.arange(4),
        as_of=0.0,
    )
    return EvaluationSet(None, queries, None, 28.0)  # type: ignore[arg-type]


def test_only_the_beginning_of_a_path_is_shared() -> None:
    overlap = category_overlap(PATHS)
    assert overlap(np.array([0, 0, 0, 0]), np.array([0, 1, 2, 3])).tolist() == pytest.approx([1.0, 2 / 3, 0.0, 0.0])
    assert np.isnan(overlap(np.array([3]), np.array([0]))).all()


def test_the_median_is_over_requests_and_the_mean_over_their_first_candidates() -> None:
    asked = asked_beside([0, 1, -1, 3], Positives.from_pairs([], [], 4))
    lists = RankedLists.from_rows([[0, 1, 2], [1, 2], [0], [0]], depth=3)
    overlap = category_overlap(PATHS)
    # (1 + 2/3) / 2 and (1 + 0) / 2; a request without a subject, and one whose subject has no category, are left out.
    assert median_relevance(lists, asked, overlap, first=2) == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert np.isnan(median_relevance(lists, asked_beside([3] * 4, asked.queries.positives), overlap))


def test_each_surface_has_its_own_requests() -> None:
    positives = Positives.from_pairs([0, 1, 2], [0, 1, 2], 3)
    requests = pl.DataFrame(
        {
            "request_id": ["x", "y", "z"],
            "user_id": ["u", "v", "u"],
            "surface": ["related_pins", BASKETS, "related_pins"],
        }
    )
    evaluation = ContextEvaluation(asked_beside([0, 1, 2], positives), requests)
    assert evaluation.source == "logged impressions"
    lists = {ModelName.rule: RankedLists.from_rows([[0], [0], [2]], depth=100)}
    found = {each.surface: each for each in by_surface(evaluation, lists)}
    assert list(found) == [BASKETS, "related_pins"]
    assert found["related_pins"].lists[ModelName.rule].items[:, 0].tolist() == [0, 2]
    assert found["related_pins"].users.tolist() == [1, 1]
    measured = found["related_pins"].measure(np.full(4, -1), np.full(4, -1))[ModelName.rule]
    assert (measured.queries, measured.recall) == (2, {1: 1.0})  # a catalogue of four has no ten


def test_a_lead_is_measured_against_every_other_model_on_the_same_queries() -> None:
    positives = Positives.from_pairs([0, 1, 2, 3], [5, 6, 7, 8], queries=4)
    lists = {
        ModelName.contextual: RankedLists.from_rows([[5], [6], [7], [0]], depth=1),
        ModelName.rule: RankedLists.from_rows([[5], [0], [0], [8]], depth=1),
    }
    (row,) = differences(ModelName.contextual, lists, positives, ks=[1], samples=200, seed=0, surface="search")
    assert (row.model, row.metric, row.segment, row.group) == (
        "contextual",
        "recall@1.less.rule",
        Segment.surface,
        "search",
    )
    assert row.value == 0.25
    assert row.low is not None
    assert row.high is not None
    assert row.low < 0 < row.high  # four queries prove nothing
    assert differences("nobody", {"rule": lists[ModelName.rule]}, positives, ks=[1], samples=0, seed=0) == []


def test_a_ratio_has_an_interval_and_may_be_infinite() -> None:
    positives = Positives.from_pairs(range(50), [5] * 50, queries=50)
    twice = RankedLists.from_rows([[5]] * 40 + [[0]] * 10, depth=1)
    once = RankedLists.from_rows([[5]] * 20 + [[0]] * 30, depth=1)
    found = paired_ratio(twice, once, positives, k=1, samples=500)
    assert found.estimate == 2.0
    assert 1.4 < found.low < 2.0 < found.high < 3.5
    nothing = RankedLists.from_rows([[0]] * 50, depth=1)
    assert paired_ratio(twice, nothing, positives, k=1, samples=0).estimate == float("inf")

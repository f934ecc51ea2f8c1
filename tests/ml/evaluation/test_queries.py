"""Evaluation queries on hand-worked logs: who is asked, what is known, what counts as found."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import EvaluationSet, Queries, contextual_queries, future_queries, positions
from ml.examples.period import Prepared
from ml.features.dataset import Dataset, build_dataset
from ml.features.event_log import EventLog
from ml.retrieval.lists import Ragged
from ml.training.fit import Fit
from settings import Settings
from tests.ml.worlds import (
    EVENT_NAMES,
    START,
    Event,
    event_frame,
    event_log,
    instant,
    item_frame,
    rule,
    small_settings,
    user_frame,
)

CATALOGUE = ["a", "b", "c", "d"]
LISTED = [None, None, None, START + timedelta(days=12)]  # d comes with its first event
ROWS: list[Event] = [
    ("u", 1.0, "page_visit", "a"),
    ("u", 3.0, "checkout", "b"),
    ("u", 11.0, "checkout", "c"),
    ("u", 12.0, "checkout", "d"),  # d is new: its first event comes after the cut-off
    ("u", 13.0, "add_to_cart", "a"),
    ("w", 2.0, "page_visit", "c"),
    ("w", 30.0, "checkout", "a"),
    ("x", 12.0, "checkout", "a"),
]


def known_and_whole(cutoff: float) -> tuple[Dataset, EventLog]:
    frame = event_frame(ROWS)
    known = frame.filter(pl.col("event_time").dt.timestamp("us") < instant(cutoff) * 1e6)
    dataset = build_dataset(
        known,
        item_frame(CATALOGUE, listed_from=LISTED),
        user_frame(["u", "w"]),
        settings=small_settings().features,
        event_names=EVENT_NAMES,
    )
    return dataset, event_log(ROWS, CATALOGUE)


def asked(only_candidates: bool, repeats_count: bool = True, maximum: int = 10) -> tuple[Queries, Dataset]:
    dataset, whole = known_and_whole(10.0)
    label_rule = rule(10.0, repeats_count)
    return future_queries(
        dataset, whole, instant(10.0), rule=label_rule, maximum=maximum, seed=0, only_candidates=only_candidates
    )


def rows_of(ragged: Ragged) -> list[list[int]]:
    return [ragged.items[begin:end].tolist() for begin, end in zip(ragged.offsets, ragged.offsets[1:], strict=False)]


def test_users_with_history_and_positives_are_asked_and_new_items_are_misses() -> None:
    queries, dataset = asked(only_candidates=False)
    assert dataset.log.user_ids.gather(queries.user).to_list() == ["u"]  # w has no positive in time, x no history
    assert queries.candidates.tolist() == [0, 1, 2]
    assert [sorted(row) for row in rows_of(queries.positives)] == [[-1, 0, 2]]
    assert queries.history_end.tolist() == [2]
    assert not queries.context.present.any()
    assert queries.as_of == instant(10.0)
    assert queries.exclude is None


def test_positives_on_items_that_nobody_could_know_may_be_left_out() -> None:
    queries, _ = asked(only_candidates=True)
    assert [sorted(row) for row in rows_of(queries.positives)] == [[0, 2]]
    assert queries.positive_name is not None
    assert [EVENT_NAMES[code - 1] for code in queries.positive_name] == ["add_to_cart", "checkout"]


def test_where_repeats_do_not_count_the_history_is_hidden() -> None:
    queries, _ = asked(only_candidates=True, repeats_count=False)
    assert rows_of(queries.positives) == [[2]]
    assert queries.exclude is not None
    assert [sorted(row) for row in rows_of(queries.exclude)] == [[0, 1]]


def test_items_that_are_listed_after_the_cutoff_are_no_candidates() -> None:
    _, whole = known_and_whole(10.0)
    known = event_frame([row for row in ROWS if row[1] < 10.0])
    available = [None, None, START + timedelta(days=9), START + timedelta(days=10)]
    items = item_frame([*CATALOGUE], listed_from=available)
    dataset = build_dataset(known, items, user_frame([]), settings=small_settings().features, event_names=EVENT_NAMES)
    queries, _ = future_queries(
        dataset, whole, instant(10.0), rule=rule(10.0), maximum=10, seed=0, only_candidates=True
    )
    assert queries.candidates.tolist() == [0, 1, 2]
    assert [sorted(row) for row in rows_of(queries.positives)] == [[0, 2]]


def test_demographics_follow_the_users_to_the_longer_log() -> None:
    before, _ = known_and_whole(10.0)
    _, dataset = asked(only_candidates=False)
    assert dataset.log.user_ids.to_list() == ["u", "w", "x"]
    np.testing.assert_array_equal(dataset.demographics[:2], before.demographics)
    assert dataset.demographics[:2, 2].all()
    assert not dataset.demographics[2].any()  # x was not known at the cut-off


def test_a_sample_of_users_keeps_all_their_positives(prepared: Prepared) -> None:
    arguments = (prepared.dataset, prepared.dataset.log, instant(60))
    every, _ = future_queries(*arguments, rule=rule(15.0), maximum=10_000, seed=0, only_candidates=True)
    some, _ = future_queries(*arguments, rule=rule(15.0), maximum=20, seed=0, only_candidates=True)
    again, _ = future_queries(*arguments, rule=rule(15.0), maximum=20, seed=0, only_candidates=True)
    assert len(some) == 20 < len(every)
    assert some.user.tolist() == again.user.tolist()
    everyone = dict(zip(every.user.tolist(), rows_of(every.positives), strict=True))
    assert [everyone[user] for user in some.user.tolist()] == rows_of(some.positives)


def test_positions_of_candidates() -> None:
    assert positions(np.array([1, 3]), 5).tolist() == [-1, 0, -1, 1, -1, -1]  # the last: outside the catalogue


def test_requests_know_what_happened_before_their_day_and_hide_their_subject() -> None:
    dataset, whole = known_and_whole(10.0)
    queries, _ = contextual_queries(
        dataset,
        whole,
        user=np.array([0, 0, -1, 1]),
        seconds=np.array([instant(12.0), instant(2.0), instant(12.0), instant(12.0)]),
        subject=np.array([2, 3, 0, -1]),
        target=(np.array([0, 0, 1, 2]), np.array([0, 3, 1, 2])),
        cutoff=instant(10.0),
    )
    assert queries.history_end.tolist() == [3, 1, 0, 6]
    assert queries.candidates.tolist() == [0, 1, 2]
    assert rows_of(queries.positives) == [[0, -1], [1], [2], []]
    assert queries.exclude is not None
    assert rows_of(queries.exclude) == [[2], [], [0], []]  # d is no candidate; the last request has no subject
    assert queries.context.subject.tolist() == [2, 3, 0, -1]


def test_unknown_users_are_answered_without_anyones_history(
    prepared: Prepared, trained: Fit, settings: Settings
) -> None:
    """A request of an unknown user is the same whatever is said of its history."""
    dataset = prepared.dataset
    nobody, somebody = np.array([-1, -1]), np.array([3, 3])

    def lists(user: NDArray[np.int64], end: int) -> list[list[int]]:
        queries, _ = contextual_queries(
            dataset,
            dataset.log,
            user,
            seconds=np.full(2, instant(80)),
            subject=np.array([-1, -1]),
            target=(np.zeros(0, np.int64), np.zeros(0, np.int64)),
            cutoff=instant(85),
        )
        assert (queries.history_end == end).all()
        return trained_lists(
            trained.network, EvaluationSet(dataset, queries, dataset.log, 15.0), settings, 10
        ).items.tolist()

    unknown = lists(nobody, 0)
    assert unknown[0] == unknown[1]
    assert unknown != lists(somebody, int(dataset.log.known_until(instant(80))[3]))

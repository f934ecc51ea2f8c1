"""Synthetic context: where it comes from, and that it never gives the label away."""

from __future__ import annotations

import numpy as np
import pytest

from ml.context import (
    NO_SUBJECT,
    interests_context,
    no_context,
    same_day_pairs,
    subject_context,
    synthetic_subjects,
)
from ml.learning import Prepared, with_subjects
from settings import ContextRecipe
from tests.ml.worlds import Event, event_log, small_settings

CATALOGUE = ["a", "b", "c", "d"]
# a and b three times within a day, a and c once; b and c only days apart; d never with another item.
ROWS: list[Event] = [
    *((f"u{user}", day, "page_visit", item) for user in range(3) for day, item in ((1.0, "a"), (1.5, "b"))),
    ("w", 2.0, "page_visit", "c"),
    ("w", 2.9, "checkout", "a"),
    ("x", 3.0, "page_visit", "b"),
    ("x", 4.0, "page_visit", "c"),
    ("y", 3.0, "page_visit", "d"),
    ("y", 3.1, "page_visit", "d"),
]


def test_pairs_lie_less_than_a_day_apart_within_one_user() -> None:
    counts = same_day_pairs(event_log(ROWS, CATALOGUE), 4).toarray()
    expected = np.zeros((4, 4))
    expected[0, 1], expected[0, 2] = 3, 1
    np.testing.assert_array_equal(counts, expected + expected.T)


def test_co_engaged_subjects_are_drawn_in_proportion_to_the_pairs() -> None:
    log = event_log(ROWS, CATALOGUE)
    drawn = synthetic_subjects(np.zeros(4000, np.int64), log, 4, ContextRecipe.co_engaged, 0)
    share = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(share, [0, 0.75, 0.25, 0], atol=0.03)
    assert synthetic_subjects(np.array([1, 2, 3]), log, 4, ContextRecipe.co_engaged, 0).tolist() == [0, 0, NO_SUBJECT]


def test_a_log_without_pairs_gives_no_subject() -> None:
    log = event_log([("u", 1.0, "checkout", "a")], CATALOGUE)
    assert synthetic_subjects(np.array([0, 3]), log, 4, ContextRecipe.co_engaged, 0).tolist() == [NO_SUBJECT] * 2


def test_the_draw_follows_the_seed() -> None:
    log = event_log(ROWS, CATALOGUE)
    first, again, other = (
        synthetic_subjects(np.zeros(50, np.int64), log, 4, ContextRecipe.co_engaged, seed) for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist() != other.tolist()


def test_the_other_recipes() -> None:
    log = event_log(ROWS, CATALOGUE)
    positives = np.array([0, 2])
    assert synthetic_subjects(positives, log, 4, ContextRecipe.own_interests, 0).tolist() == [0, 2]
    assert synthetic_subjects(positives, log, 4, ContextRecipe.none, 0).tolist() == [NO_SUBJECT] * 2


def test_a_subject_is_never_its_positive(prepared: Prepared) -> None:
    with_neighbours = with_subjects(prepared, small_settings(context={"recipe": ContextRecipe.co_engaged}))
    found = with_neighbours.subjects >= 0
    assert found.mean() > 0.2
    assert (with_neighbours.subjects[found] != with_neighbours.examples.item[found]).all()


def test_a_subject_shows_content_and_interests_and_a_source_of_interests_only_those(prepared: Prepared) -> None:
    features = prepared.dataset.features
    rows = np.array([5, NO_SUBJECT])
    subject, interests = subject_context(rows, features), interests_context(rows, features)
    assert subject.subject.tolist() == [5, NO_SUBJECT]
    assert interests.subject.tolist() == [NO_SUBJECT, NO_SUBJECT]
    for context in (subject, interests):
        assert context.present.tolist() == [True, False]
        np.testing.assert_array_equal(context.interests, [features.interests[5], np.zeros(4)])
        np.testing.assert_array_equal(context.confidence, [features.confidence[5], np.zeros(4)])


@pytest.mark.parametrize("kind", ["subject", "interests"])
def test_a_dropped_context_is_gone_altogether(prepared: Prepared, kind: str) -> None:
    make = subject_context if kind == "subject" else interests_context
    dropped = make(np.array([5, 6]), prepared.dataset.features).without(np.array([True, False]))
    nothing = no_context(2, 4)
    assert dropped.present.tolist() == [False, True]
    assert nothing.present.tolist() == [False, False]
    for name in ("subject", "interests", "confidence"):
        np.testing.assert_array_equal(getattr(dropped, name)[0], getattr(nothing, name)[0])
    np.testing.assert_array_equal(dropped.take(np.array([1])).interests, prepared.dataset.features.interests[[6]])

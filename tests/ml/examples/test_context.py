"""Synthetic context: where it comes from, and that it never gives the label away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from ml.examples.context import (
    NO_SUBJECT,
    Context,
    interests_context,
    no_context,
    same_day_pairs,
    subject_context,
    synthetic_subjects,
)
from ml.examples.pairs import Examples
from ml.examples.period import Prepared, TrainingPeriod, with_contexts
from ml.features.content import freeze
from ml.features.event_log import EventLog
from ml.features.items import build_item_features
from settings import ContextRecipe, FeatureSettings
from tests.ml.worlds import Event, event_log, item_frame, small_settings

CATALOGUE = ["a", "b", "c", "d"]
ITEMS = item_frame(CATALOGUE, category=["Home > Chairs", "Home", "Home > Chairs", None])
FEATURES = build_item_features(ITEMS, freeze(ITEMS, np.zeros((4, 2), np.float32)), FeatureSettings())
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


def asked(pairs: list[tuple[str, int, str]], log: EventLog) -> Examples:
    """Examples of (user, events in the history, positive item)."""
    user = log.user_rows(pl.Series([user for user, _, _ in pairs]))
    count = len(pairs)
    return Examples(
        cutoff=np.zeros(count),
        user=user,
        history_end=log.offsets[user] + np.array([events for _, events, _ in pairs], np.int64),
        item=np.array([CATALOGUE.index(item) for _, _, item in pairs], np.int64),
        weight=np.ones(count, np.float32),
        name=np.ones(count, np.int64),
    )


def one_fold(log: EventLog) -> NDArray[np.int64]:
    return np.zeros(log.users, np.int64)


def drawn_for(items: str, log: EventLog, recipe: ContextRecipe, seed: int = 0) -> list[int]:
    """Subjects of examples with these positives; whose they are does not matter to the recipe."""
    return synthetic_subjects(
        asked([("u", 0, item) for item in items], log),
        log,
        FEATURES,
        recipe=recipe,
        fold_of_user=one_fold(log),
        seed=seed,
    ).tolist()


def test_co_engaged_subjects_are_drawn_in_proportion_to_the_pairs() -> None:
    log = event_log(ROWS, CATALOGUE)
    drawn = drawn_for("a" * 4000, log, ContextRecipe.co_engaged)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, [0, 0.75, 0.25, 0], atol=0.03)
    assert drawn_for("bcd", log, ContextRecipe.co_engaged) == [0, 0, NO_SUBJECT]


def test_co_engaged_subjects_come_from_pairs_that_users_of_the_same_fold_made() -> None:
    """The others' pairs are in the graph under which this fold learns."""
    log = event_log(ROWS, CATALOGUE)
    fold = np.array([int(user == "w") for user in log.user_ids])
    positive = asked([("w", 0, "a"), ("u0", 0, "a"), ("w", 0, "b"), ("u1", 0, "c")], log)
    drawn = synthetic_subjects(positive, log, FEATURES, recipe=ContextRecipe.co_engaged, fold_of_user=fold, seed=0)
    assert drawn.tolist() == [2, 1, NO_SUBJECT, NO_SUBJECT]


def test_a_log_without_pairs_gives_no_subject() -> None:
    log = event_log([("u", 1.0, "checkout", "a")], CATALOGUE)
    assert drawn_for("ad", log, ContextRecipe.co_engaged) == [NO_SUBJECT] * 2


def test_the_draw_follows_the_seed() -> None:
    log = event_log(ROWS, CATALOGUE)
    first, again, other = (drawn_for("a" * 50, log, ContextRecipe.co_engaged, seed) for seed in (0, 0, 1))
    assert first == again != other


MATES: list[Event] = [
    ("m", 1.0, "page_visit", "a"),  # the history
    ("m", 5.0, "page_visit", "d"),  # more than a day before the positive
    ("m", 6.2, "page_visit", "c"),
    ("m", 7.0, "checkout", "a"),  # the positive
    ("m", 7.0, "page_visit", "a"),  # the same item
    ("m", 7.5, "signup", None),
    ("m", 7.9, "page_visit", "b"),
    ("m", 9.0, "page_visit", "d"),
    ("n", 7.0, "page_visit", "d"),  # somebody else
    ("o", 1.0, "page_visit", "b"),
    ("o", 7.0, "checkout", "a"),  # alone on its day
]


def test_basket_mates_are_other_items_of_the_user_within_a_day_of_the_positive() -> None:
    log = event_log(MATES, CATALOGUE)
    several = asked([("m", 1, "a")] * 2000, log)
    mates = synthetic_subjects(
        several, log, FEATURES, recipe=ContextRecipe.basket_mate, fold_of_user=one_fold(log), seed=0
    )
    np.testing.assert_allclose(np.bincount(mates, minlength=4) / 2000, [0, 0.5, 0.5, 0], atol=0.05)


def test_without_a_basket_mate_the_subject_is_an_item_that_others_engaged_with_beside_the_positive() -> None:
    log = event_log(MATES, CATALOGUE)
    drawn = synthetic_subjects(
        asked([("o", 1, "a")] * 50, log),
        log,
        FEATURES,
        recipe=ContextRecipe.basket_mate,
        fold_of_user=one_fold(log),
        seed=0,
    )
    assert set(drawn.tolist()) == {1, 2}


def test_the_other_recipes() -> None:
    log = event_log(ROWS, CATALOGUE)
    assert drawn_for("ac", log, ContextRecipe.own_interests) == [0, 2]
    assert drawn_for("ac", log, ContextRecipe.none) == [NO_SUBJECT] * 2


def test_a_category_neighbour_is_any_other_item_of_the_same_deepest_category() -> None:
    log = event_log(ROWS, CATALOGUE)
    assert drawn_for("aacbd", log, ContextRecipe.category_neighbour) == [2, 2, 0, NO_SUBJECT, NO_SUBJECT]
    three = item_frame(CATALOGUE, category=["Home", "Art", "Home", "Home"])
    features = build_item_features(three, freeze(three, np.zeros((4, 2), np.float32)), FeatureSettings())
    for item, others in (("a", (2, 3)), ("c", (0, 3)), ("d", (0, 2))):
        examples = asked([("u", 0, item)] * 2000, log)
        drawn = synthetic_subjects(
            examples, log, features, recipe=ContextRecipe.category_neighbour, fold_of_user=one_fold(log), seed=0
        )
        assert set(drawn.tolist()) == set(others)
        assert np.mean(drawn == others[0]) == pytest.approx(0.5, abs=0.05)


def test_a_perturbed_context_has_other_confidences_and_fewer_interests_and_its_subject_still() -> None:
    rows = 4000
    shown = Context(np.arange(rows), np.full((rows, 2), 7), np.full((rows, 2), 0.2, np.float32))
    random = np.random.default_rng(0)
    found = shown.perturbed(random, 0.25, 0.3)
    np.testing.assert_array_equal(found.subject, shown.subject)
    kept = found.interests > 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(kept, found.confidence > 0)
    noise = np.log(found.confidence[kept] / 0.2)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(0.3, abs=0.02)
    assert shown.perturbed(random, 0.0, 0.0) is shown
    assert shown.perturbed(random, 0.0, 5.0).confidence.max() == 1


@pytest.mark.parametrize(
    "recipe", [ContextRecipe.co_engaged, ContextRecipe.basket_mate, ContextRecipe.category_neighbour]
)
def test_a_subject_is_never_its_positive(prepared: Prepared, period: TrainingPeriod, recipe: ContextRecipe) -> None:
    with_neighbours = with_contexts(prepared, period, small_settings(context={"recipe": recipe}))
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

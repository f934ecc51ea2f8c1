"""Popularity and the rule by hand; item-kNN against a dense reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import ml.evaluation.baselines
from ml.evaluation.baselines import SECONDS_A_DAY, ItemKNN, popularity_lists, popularity_scores, rule_lists
from ml.retrieval.lists import Ragged


def slow_similarity(users: NDArray[np.int64], items: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """The formula of ItemKNN's docstring, item pair by item pair, with k1 = 0.2 and b = 0.5."""
    seen = {(int(user), int(item)) for user, item in zip(users, items, strict=True)}
    people = sorted({user for user, _ in seen})
    items_of = {user: sum(u == user for u, _ in seen) for user in people}
    users_of = [sum(i == item for _, i in seen) for item in range(size)]
    mean = len(seen) / len(people)

    def weight(user: int, item: int) -> float:
        if (user, item) not in seen:
            return 0.0
        rarity = math.log(len(people) / (1 + users_of[item]))
        return rarity * 1.2 / (0.2 * (0.5 + 0.5 * items_of[user] / mean) + 1)

    result = np.zeros((size, size))
    for i in range(size):
        products = [sum(weight(user, i) * weight(user, j) for user in people) for j in range(size)]
        products[i] = 0.0
        result[i] = np.maximum(products, 0.0)
    return result


@pytest.fixture
def events() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 50, 260) * 7, np.minimum(generator.geometric(0.12, 260) - 1, 24)


def test_popularity_counts_events_before_the_cutoff_within_the_window() -> None:
    day = SECONDS_A_DAY
    items, times = [0, 0, 1, 2, 2, -1], [0, 9 * day, 3 * day, 10 * day, 2.9 * day, 1]
    assert popularity_scores(items, times, 10 * day, window_days=None, items=4).tolist() == [2, 1, 1, 0]
    assert popularity_scores(items, times, 10 * day, window_days=7, items=4).tolist() == [1, 1, 0, 0]


def test_popularity_lists_differ_only_by_what_is_excluded() -> None:
    scores = np.array([1, 5, 5, 0], np.float32)
    lists = popularity_lists(scores, 2, 3, Ragged.from_pairs([1], [1], 2))
    assert lists.items.tolist() == [[1, 2, 0], [2, 0, 3]]


@pytest.mark.parametrize("in_memory", [1 << 24, 60])
def test_similarities_equal_the_slow_reference(
    events: tuple[NDArray[np.int64], NDArray[np.int64]], in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ml.evaluation.baselines, "PRODUCTS_IN_MEMORY", in_memory)  # 60: many parts, some of one row
    model = ItemKNN.fit(*events, 25)
    expected = slow_similarity(*events, 25)
    assert np.allclose(model.similarity(np.arange(25)).toarray(), expected, atol=1e-5)
    some = np.array([7, 0, 24])
    assert np.allclose(model.similarity(some).toarray(), expected[some], atol=1e-5)


def test_scores_add_up_over_a_history_and_lists_end_with_the_neighbours(
    events: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    model = ItemKNN.fit(*events, 30)  # items 25 to 29 have no event
    history = Ragged.from_pairs([0, 0, 0, 2, 2], [1, 4, 4, 3, -1], 4)
    dense = model.similarity(np.arange(30)).toarray()
    found = model.lists(history, np.arange(30), 30)
    listed = found.items[0] >= 0
    assert np.allclose(found.scores[0, listed], (dense[1] + dense[4])[found.items[0, listed]])
    assert listed.sum() == (dense[1] + dense[4] > 0).sum()
    lists = model.lists(history, np.arange(30), 30, exclude=history)
    assert not {1, 4} & set(lists.items[0].tolist())
    assert (lists.items[[1, 3]] == -1).all()
    assert not np.isin(lists.items, range(25, 30)).any()
    best = lists.items[2, 0]
    assert dense[3, best] == dense[3].max()
    some = np.arange(2, 30, 3)  # ranked among themselves, in their own rows
    strongest = dense[3, some].max()
    assert dense[3, some[model.lists(history, some, 5).items[2, 0]]] == strongest > 0


def test_repeated_events_and_events_outside_the_catalogue_change_nothing(
    events: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    users, items = events
    every = np.arange(25)
    once = ItemKNN.fit(users, items, 25).similarity(every).toarray()
    more = ItemKNN.fit([*users, *users, 3, 4], [*items, *items, -1, -1], 25).similarity(every).toarray()
    assert np.array_equal(once, more)


def test_no_events_give_a_model_that_retrieves_nothing() -> None:
    model = ItemKNN.fit([], [], 5)
    assert (model.lists(Ragged.from_pairs([0], [2], 1), np.arange(5), 3).items == -1).all()
    assert (model.lists(Ragged.from_pairs([], [], 1), np.arange(5), 3).items == -1).all()


def test_the_rule_shows_the_subjects_category_then_its_parent_then_its_brand_then_what_is_popular() -> None:
    leaf, parent, brand = (np.array(each) for each in ([0, 0, 1, 2, -1, -1], [0, 0, 0, 1, -1, -1], [5, 6, 7, 5, 5, -1]))
    popularity = [np.array(each, np.float32) for each in ([1, 2, 9, 3, 4, 8], [0, 0, 0, 0, 0, 0])]
    subjects = np.array([[0, 0, 5], [-1, -1, -1], [-1, -1, 5]])  # the categories of a subject may be unknown
    found = rule_lists(subjects, [leaf, parent, brand], popularity, depth=6)
    assert found.items.tolist() == [[1, 0, 2, 4, 3, 5], [2, 5, 4, 3, 1, 0], [4, 3, 0, 2, 5, 1]]
    without = rule_lists(subjects[:1, :1], [leaf], popularity[:1], depth=6, exclude=Ragged.from_pairs([0], [1], 1))
    assert without.items[0, 0] == 0


def test_the_second_popularity_breaks_ties_of_the_first() -> None:
    recent, ever = np.array([1, 1, 0], np.float32), np.array([2, 3, 9], np.float32)
    assert rule_lists(np.zeros((1, 0), int), [], [recent, ever], depth=3).items.tolist() == [[1, 0, 2]]

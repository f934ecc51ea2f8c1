"""Exact retrieval: the same lists as sorting everything, whatever the batch, ties and exclusions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.retrieval.lists import Ragged, RankedLists, search, search_scores, top_k


def slow_top_k(scores: NDArray[np.float32], depth: int, excluded: list[set[int]]) -> list[list[int]]:
    """Sort all items of each query in plain Python by the stated rule."""
    lists = []
    for row, hidden in zip(scores, excluded, strict=True):
        allowed = [item for item in range(len(row)) if item not in hidden and row[item] > -np.inf]
        best = [item for _, item in sorted((-row[item], item) for item in allowed)][:depth]
        lists.append(best + [-1] * (depth - len(best)))
    return lists


def ragged(rows: list[set[int]]) -> Ragged:
    pairs = [(query, item) for query, row in enumerate(rows) for item in sorted(row)]
    return Ragged.from_pairs([query for query, _ in pairs], [item for _, item in pairs], len(rows))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_top_k_equals_sorting_everything(data: st.DataObject) -> None:
    queries, items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    # Few distinct values, so that ties and signed zeros are the rule.
    value = st.sampled_from([-np.inf, -1e30, -2.0, -1.0, -0.0, 0.0, 1e-30, 1.0, 1.5, 1e30])
    scores = np.array(
        data.draw(st.lists(st.lists(value, min_size=items, max_size=items), min_size=queries, max_size=queries)),
        np.float32,
    )
    excluded = [data.draw(st.sets(st.integers(0, items - 1))) for _ in range(queries)]
    depth = data.draw(st.integers(1, 14))
    assert top_k(scores, depth, ragged(excluded)).items.tolist() == slow_top_k(scores, depth, excluded)


def test_search_equals_sorting_the_inner_products_for_every_batch_size() -> None:
    generator = np.random.default_rng(0)
    # Small integers: products are exact, so equal scores are really equal.
    queries = generator.integers(-2, 3, (23, 4)).astype(np.float32)
    items = generator.integers(-2, 3, (40, 4)).astype(np.float32)
    excluded = [set(generator.integers(0, 40, generator.integers(0, 8)).tolist()) for _ in range(23)]
    expected = slow_top_k(queries @ items.T, 15, excluded)
    for batch in (None, 1, 7, 23, 100):
        lists = search(queries, items, 15, exclude=ragged(excluded), batch=batch)
        assert lists.items.tolist() == expected
        assert np.array_equal(lists.scores, np.take_along_axis(queries @ items.T, lists.items, 1))


def test_lists_end_where_the_catalogue_ends() -> None:
    lists = search(np.eye(2), np.eye(2), 4, exclude=Ragged.from_pairs([0], [0], 2))
    assert lists.items.tolist() == [[1, -1, -1, -1], [1, 0, -1, -1]]
    assert np.isneginf(lists.scores[0, 1:]).all()


def test_excluding_unknown_items_changes_nothing() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(1, 6)
    plain = top_k(scores, 3)
    assert np.array_equal(top_k(scores, 3, Ragged.from_pairs([0, 0], [-1, -1], 1)).items, plain.items)


def test_top_k_leaves_the_given_scores_alone() -> None:
    scores = np.ones((1, 3), np.float32)
    top_k(scores, 2, Ragged.from_pairs([0], [0], 1))
    assert scores.tolist() == [[1.0, 1.0, 1.0]]


def test_no_queries_give_empty_lists() -> None:
    assert search(np.zeros((0, 3)), np.eye(3), 5).items.shape == (0, 5)


def test_scores_of_a_callable_are_asked_for_in_batches_that_cover_every_query_once() -> None:
    asked: list[tuple[int, int]] = []

    def scores(start: int, stop: int) -> NDArray[np.float32]:
        asked.append((start, stop))
        return np.eye(5, dtype=np.float32)[start:stop]

    assert search_scores(scores, 5, 5, depth=1, batch=2).items.ravel().tolist() == [0, 1, 2, 3, 4]
    assert asked == [(0, 2), (2, 4), (4, 5)]


def test_bad_input_is_an_error_that_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="NaN"):
        top_k(np.array([[np.nan, 1.0]]), 1)
    with pytest.raises(ValueError, match="one width"):
        search(np.eye(2), np.eye(3), 1)
    with pytest.raises(ValueError, match="exclude is for 1 queries, but there are 2"):
        search(np.eye(2), np.eye(2), 1, exclude=Ragged.from_pairs([], [], 1))
    with pytest.raises(ValueError, match="outside the catalogue of 2 items"):
        search(np.eye(2), np.eye(2), 1, exclude=Ragged.from_pairs([0], [2], 2))
    with pytest.raises(ValueError, match=r"outside 0 \.\. 1"):
        Ragged.from_pairs([2], [0], 2)
    with pytest.raises(ValueError, match="they are pairs"):
        Ragged.from_pairs([0, 1], [0], 2)
    with pytest.raises(ValueError, match="follows the end"):
        RankedLists(np.array([[-1, 3]]), np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="holds one twice"):
        RankedLists.from_rows([[1, 1]])


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 9)), max_size=25),
    wanted=st.lists(st.integers(0, 5), max_size=9),
)
def test_ragged_groups_slices_and_takes_like_lists_of_lists(pairs: list[tuple[int, int]], wanted: list[int]) -> None:
    rows = [[item for query, item in pairs if query == wanted_query] for wanted_query in range(6)]
    whole = Ragged.from_pairs([query for query, _ in pairs], [item for _, item in pairs], 6)

    def unpack(value: Ragged) -> list[list[int]]:
        return [part.tolist() for part in np.split(value.items, value.offsets[1:-1])][: value.queries]

    assert unpack(whole) == rows
    assert unpack(whole.slice(1, 4)) == rows[1:4]
    assert unpack(whole.take(np.array(wanted, np.int64))) == [rows[query] for query in wanted]
    assert unpack(whole.where(whole.items > 3)) == [[item for item in row if item > 3] for row in rows]
    assert whole.query_rows.tolist() == [query for query, row in enumerate(rows) for _ in row]

"""An index of shards is the index of all, and finds what brute force finds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from ml.retrieval.index import ItemIndex, ann_recall, build_index, recall_by_blocks, search_allowed, search_index
from ml.retrieval.lists import Ragged, search
from ml.retrieval.sharded_index import (
    list_count,
    merged_index,
    sample_rows,
    shard_ranges,
    trained_index,
    write_empty,
    write_shard,
)
from settings import IndexKind, IndexSettings

ITEMS, WIDTH = 20_000, 24


@lru_cache
def embeddings(size: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors of 300 kinds of 40 categories: of a few directions many, of many directions a little."""
    random, structure = np.random.default_rng(seed), np.random.default_rng(7)
    categories = structure.normal(size=(40, WIDTH))
    kinds = categories[structure.integers(0, 40, 300)] + 0.7 * structure.normal(size=(300, WIDTH))
    noise = random.normal(size=(size, WIDTH)) / np.arange(1, WIDTH + 1) ** 0.5
    vectors = kinds[random.integers(0, 300, size)] + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@lru_cache
def at_once() -> ItemIndex:
    return build_index(embeddings(ITEMS, 1), IndexSettings(kind=IndexKind.ivf))


def shards(directory: Path, ranges: Sequence[range]) -> tuple[faiss.Index, list[Path]]:
    """Write the shards of the ranges; return the index without vectors, and the files."""
    vectors, empty = embeddings(ITEMS, 1), directory / "empty"
    index = trained_index(vectors[sample_rows(ITEMS)], ITEMS)
    write_empty(index, empty)
    files = [directory / str(rows.start) for rows in ranges]
    for rows, file in zip(ranges, files, strict=True):
        write_shard(empty, vectors[rows.start : rows.stop], first=rows.start, file=file)
    return index, files


@pytest.mark.parametrize("shard_items", [4096, 8192, 1 << 17])
def test_the_number_of_shards_changes_no_bit(tmp_path: Path, shard_items: int) -> None:
    merged = merged_index(*shards(tmp_path, shard_ranges(ITEMS, shard_items)))
    assert faiss.serialize_index(merged).tobytes() == faiss.serialize_index(at_once().vectors).tobytes()


def test_a_shard_that_is_missing_or_there_twice_is_an_error(tmp_path: Path) -> None:
    ranges = [range(8192), range(8192, 16_384), range(16_384, ITEMS)]
    index, files = shards(tmp_path, ranges)
    for wrong in ([files[0], files[2]], [files[0], files[0], files[2]]):
        with pytest.raises(ValueError, match="the shards of an index have"):
            merged_index(faiss.clone_index(index), wrong)


def test_few_of_the_true_hundred_are_missed() -> None:
    vectors, queries = embeddings(ITEMS, 1), embeddings(200, 2)
    assert ann_recall(at_once(), queries, vectors) >= 0.99
    assert ann_recall(at_once(), queries, vectors, 1000) >= 0.98  # the end of a long list lies in more lists
    wrong = build_index(vectors[::-1], IndexSettings(kind=IndexKind.ivf))
    assert ann_recall(wrong, queries, vectors) < 0.1


def test_a_short_list_is_searched_in_enough_lists() -> None:
    """Unit vectors that lie in no clusters."""
    scale = 1 / np.arange(1, WIDTH + 1) ** 0.75
    drawn = [np.random.default_rng(seed).normal(size=(size, WIDTH)) * scale for seed, size in ((1, ITEMS), (2, 200))]
    vectors, queries = ((each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32) for each in drawn)
    index = build_index(vectors, IndexSettings(kind=IndexKind.ivf))
    assert ann_recall(index, queries, vectors, 5) >= 0.98


def test_the_recall_of_blocks_is_that_of_all() -> None:
    """With a block that is shorter than the lists; a vector of length 0 hides nothing."""
    vectors, queries = embeddings(3000, 1).copy(), embeddings(50, 2)
    vectors[:300] = 0
    index = build_index(embeddings(3000, 3), IndexSettings())
    for k in (1, 100):
        whole = ann_recall(index, queries, vectors, k)
        assert recall_by_blocks(index, queries, np.split(vectors, [10, 1000, 2999]), k) == whole < 1
    good = build_index(vectors, IndexSettings())
    assert recall_by_blocks(good, queries, np.split(vectors, [10, 1000, 2999])) == 1


def test_most_lists_are_not_read() -> None:
    """Counted in compared vectors; where most items are not allowed, only the allowed ones are compared."""
    library: Any = faiss  # its type stubs do not know the statistics
    index, statistics, query = at_once(), library.cvar.indexIVF_stats, embeddings(1, 2)[0]

    def compared(allowed: NDArray[np.bool_]) -> int:
        statistics.reset()
        search_allowed(index, query, 50, allowed)
        return int(statistics.ndis)

    assert 0 < compared(np.ones(ITEMS, bool)) < 0.3 * ITEMS
    assert compared(np.arange(ITEMS) % 100 == 0) <= ITEMS // 100 + list_count(ITEMS)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_lists_with_exclusions_are_nearly_those_of_brute_force(share: float) -> None:
    vectors, queries, random = embeddings(ITEMS, 1), embeddings(30, 2), np.random.default_rng(3)
    allowed = random.random(ITEMS) < share
    nearest = search(queries, vectors, 200).items
    exclude = Ragged.from_pairs(np.repeat(np.arange(30), 200), nearest.ravel(), 30)
    hidden = np.flatnonzero(~allowed)
    both = Ragged.from_pairs(
        np.r_[exclude.query_rows, np.repeat(np.arange(30), len(hidden))], np.r_[exclude.items, np.tile(hidden, 30)], 30
    )
    found = search_index(index := at_once(), queries, 50, exclude=exclude, allowed=allowed)
    expected = search(queries, vectors, 50, exclude=both)
    assert len(index) == ITEMS
    assert (found.items == expected.items).mean() > (0.97 if share > 0.02 else 0.9999)
    np.testing.assert_allclose(found.scores[:, 0], expected.scores[:, 0], atol=1e-2)


def test_equal_vectors_are_all_found_in_the_order_of_their_rows() -> None:
    """More equal items than a list has places on the average, apart from each other."""
    vectors = embeddings(ITEMS, 1).copy()
    twins = np.arange(7, ITEMS, 20)
    vectors[twins] = vectors[7]
    index = build_index(vectors, IndexSettings(kind=IndexKind.ivf))
    rows, scores = search_allowed(index, vectors[7], len(twins), np.ones(ITEMS, bool))
    assert np.array_equal(rows, twins)
    assert (scores == scores[0]).all()
    assert np.array_equal(search_index(index, vectors[[7]], 50).items[0], twins[:50])


@pytest.mark.parametrize("size", [1, 2, 38, 80])
def test_a_catalogue_of_a_few_items_is_found_whole(size: int) -> None:
    vectors = embeddings(size, 5)
    index = build_index(vectors, IndexSettings(kind=IndexKind.ivf))
    assert np.array_equal(search_index(index, vectors, size).items, search(vectors, vectors, size).items)


def test_the_lists_are_trained_with_enough_items() -> None:
    for items in (1, 39, 100, 10_000, 1_000_000, 10_000_000):
        rows = sample_rows(items)
        assert len(np.unique(rows)) == len(rows) == min(items, 39 * list_count(items))
        assert list_count(items) <= 4 * items**0.5
    assert list_count(1_000_000) == 4000
    with pytest.raises(ValueError, match="cannot be made from 5 vectors"):
        trained_index(embeddings(5, 1), 1000)

"""Exact retrieval: the best K catalogue items for each query, and the value types for queries' items and lists.

Ties are broken by one rule everywhere: the higher score first, then the lower catalogue row (catalogues are sorted by
item id). -0.0 and 0.0 are the same score. For two items with equal embeddings, the scores of a float32 matrix product
may still differ in the last bit; the higher score then comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

NO_ITEM = -1
SCORES_IN_MEMORY = (
    1 << 22
)  # scores held at once: 16 MiB as float32 and twice that as sort keys, near the size of caches

BatchScores = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Ragged:
    """Catalogue rows of each query, in varying number: positives, histories, items to exclude.

    Attributes:
        offsets: [queries + 1]; query q owns ``items[offsets[q]:offsets[q + 1]]``.
        items: [n] catalogue rows; -1 is an item outside the catalogue.

    Query 0 has the items 5 and 6, query 1 none, query 2 the item 7:

    >>> history = Ragged(offsets=np.array([0, 2, 2, 3]), items=np.array([5, 6, 7]))
    >>> history.counts.tolist(), history.query_rows.tolist()
    ([2, 0, 1], [0, 0, 2])
    >>> history.take(np.array([2, 0])).items.tolist()
    [7, 5, 6]
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.offsets.ndim != 1 or not len(self.offsets) or self.offsets[0] != 0 or np.any(np.diff(self.offsets) < 0):
            raise ValueError("Ragged.offsets must be one-dimensional, start with 0 and never fall")
        if self.items.ndim != 1 or self.offsets[-1] != len(self.items):
            raise ValueError(f"Ragged.offsets ends with {self.offsets[-1]} but there are {len(self.items)} items")

    @staticmethod
    def from_pairs(query_rows: ArrayLike, item_rows: ArrayLike, queries: int) -> Ragged:
        """Group (query row, item row) pairs by query; the order of a query's pairs and repeated pairs are kept.

        Args:
            query_rows: [n] in 0 .. queries - 1.
            item_rows: [n] catalogue rows, -1 outside the catalogue.
            queries: number of queries, including queries without a pair.

        Raises:
            ValueError: lengths differ, or a query row is out of range.

        >>> pairs = Ragged.from_pairs(query_rows=[2, 0, 2], item_rows=[7, 5, 6], queries=3)
        >>> pairs.offsets.tolist(), pairs.items.tolist()
        ([0, 1, 1, 3], [5, 7, 6])
        """
        query_of, items = np.asarray(query_rows, np.int64), np.asarray(item_rows, np.int64)
        if len(query_of) != len(items):
            raise ValueError(f"{len(query_of)} query rows but {len(items)} item rows: they are pairs")
        if len(query_of) and not 0 <= query_of.min() <= query_of.max() < queries:
            raise ValueError(f"query rows run from {query_of.min()} to {query_of.max()}, outside 0 .. {queries - 1}")
        counts = np.bincount(query_of, minlength=queries)
        return Ragged(_offsets(counts), items[np.argsort(query_of, kind="stable")])

    @property
    def queries(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return the number of items of each query [queries]."""
        return np.diff(self.offsets)

    @property
    def query_rows(self) -> NDArray[np.int64]:
        """Return the query row of each item [n]."""
        return np.repeat(np.arange(self.queries, dtype=np.int64), self.counts)

    def slice(self, start: int, stop: int) -> Ragged:
        """Return the queries start .. stop - 1."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(offsets - offsets[0], self.items[offsets[0] : offsets[-1]])

    def take(self, queries: NDArray[np.int64]) -> Ragged:
        """Return the given queries, in the given order."""
        counts = self.counts[queries]
        offsets = _offsets(counts)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][queries] - offsets[:-1], counts)
        return Ragged(offsets, self.items[source])

    def where(self, keep: NDArray[np.bool_]) -> Ragged:
        """Keep only the items whose entry in ``keep`` [n] is true, for the same queries.

        >>> history = Ragged.from_pairs([0, 0, 1], [5, 6, 6], queries=2)
        >>> history.where(history.items != 6).counts.tolist()
        [1, 0]
        """
        return Ragged.from_pairs(self.query_rows[keep], self.items[keep], self.queries)


Positives = Ragged
"""What users did after the cut-off: an item outside the catalogue (-1) is a positive that nobody can retrieve."""


@dataclass(frozen=True)
class RankedLists:
    """Retrieved items, best first.

    Attributes:
        items: [queries, depth] catalogue rows; -1 where a list has ended.
        scores: [queries, depth]; -inf where a list has ended.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or self.items.shape != self.scores.shape:
            raise ValueError(f"RankedLists needs equal [queries, depth]: {self.items.shape} and {self.scores.shape}")
        if np.any((self.items[:, :-1] == NO_ITEM) & (self.items[:, 1:] != NO_ITEM)):
            raise ValueError("RankedLists: an item follows the end of its list (-1); move the items up")

    @staticmethod
    def from_rows(rows: Sequence[Sequence[int]], depth: int = 100) -> RankedLists:
        """Build lists from catalogue rows, best first, filled up to ``depth``; scores fall by one a rank.

        Raises:
            ValueError: a list is longer than ``depth`` or holds an item twice.

        >>> RankedLists.from_rows([[4, 2], [3]], depth=3).items.tolist()
        [[4, 2, -1], [3, -1, -1]]
        """
        items = np.full((len(rows), depth), NO_ITEM, np.int64)
        for query, row in enumerate(rows):
            if len(row) > depth or len(set(row)) < len(row):
                raise ValueError(f"list {query} has {len(row)} items (at most {depth}) or holds one twice")
            items[query, : len(row)] = row
        scores = np.where(items == NO_ITEM, -np.inf, -np.arange(depth))
        return RankedLists(items, scores.astype(np.float32))

    @staticmethod
    def from_places(
        query_rows: NDArray[np.int64], places: NDArray[np.int64], items: NDArray[np.int64], *, queries: int, depth: int
    ) -> RankedLists:
        """Build lists from (query row, place from 0, item) triples, filled up to ``depth``; scores fall by one a rank.

        >>> rows, places, items = np.array([1, 0, 1]), np.array([0, 0, 1]), np.array([7, 5, 6])
        >>> RankedLists.from_places(rows, places, items, queries=2, depth=2).items.tolist()
        [[5, -1], [7, 6]]
        """
        found = np.full((queries, depth), NO_ITEM, np.int64)
        found[query_rows, places] = items
        return RankedLists(found, np.where(found == NO_ITEM, -np.inf, -np.arange(depth)).astype(np.float32))

    @property
    def queries(self) -> int:
        return len(self.items)

    @property
    def depth(self) -> int:
        return int(self.items.shape[1])

    def take(self, queries: NDArray[np.int64]) -> RankedLists:
        """Return the lists of the given queries, in the given order."""
        return RankedLists(self.items[queries], self.scores[queries])

    @staticmethod
    def concatenate(parts: Sequence[RankedLists]) -> RankedLists:
        """Join the lists of several batches of queries, in order."""
        return RankedLists(
            np.concatenate([part.items for part in parts]), np.concatenate([part.scores for part in parts])
        )


def search(
    queries: ArrayLike, items: ArrayLike, depth: int, *, exclude: Ragged | None = None, batch: int | None = None
) -> RankedLists:
    """Return the ``depth`` items with the highest inner product for each query, exactly.

    Args:
        queries: [queries, width] query embeddings.
        items: [items, width] item embeddings, in catalogue order.
        depth: length of the lists; a catalogue with fewer items gives lists that end early.
        exclude: items that a query must not get (its history, its context item); -1 is ignored.
        batch: queries scored at once; by default as many as keep ``SCORES_IN_MEMORY`` scores in memory.

    Raises:
        ValueError: widths differ, a score is not a number, or ``exclude`` has another number of queries.

    >>> found = search([[1.0, 0.0]], [[0.0, 1.0], [0.5, 0.0], [1.0, 1.0]], depth=2)
    >>> found.items.tolist(), found.scores.tolist()
    ([[2, 1]], [[1.0, 0.5]])
    """
    left = torch.from_numpy(np.require(queries, np.float32, ["C", "W"]))
    right = torch.from_numpy(np.require(items, np.float32, ["C", "W"]))
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ValueError(f"queries {tuple(left.shape)} and items {tuple(right.shape)} must be matrices of one width")

    def scores(start: int, stop: int) -> NDArray[np.float32]:
        return (left[start:stop] @ right.T).numpy()

    return search_scores(scores, len(left), len(right), depth=depth, exclude=exclude, batch=batch)


def search_scores(
    scores: BatchScores,
    queries: int,
    items: int,
    *,
    depth: int,
    exclude: Ragged | None = None,
    batch: int | None = None,
) -> RankedLists:
    """Search as ``search`` does, under any scores: ``scores(start, stop)`` gives [stop - start, items].

    An item with score -inf is never retrieved.
    """
    if exclude is not None and exclude.queries != queries:
        raise ValueError(f"exclude is for {exclude.queries} queries, but there are {queries}")
    size = batch or max(1, SCORES_IN_MEMORY // max(1, items))
    parts = [RankedLists(np.zeros((0, depth), np.int64), np.zeros((0, depth), np.float32))]
    for start in range(0, queries, size):
        stop = min(start + size, queries)
        parts.append(top_k(scores(start, stop), depth, None if exclude is None else exclude.slice(start, stop)))
    return RankedLists.concatenate(parts)


def top_k(scores: ArrayLike, depth: int, exclude: Ragged | None = None) -> RankedLists:
    """Return the ``depth`` highest scores of each row of ``scores`` [queries, items], without the excluded items.

    >>> top_k([[1.0, 3.0, 3.0, 2.0]], depth=3, exclude=Ragged.from_pairs([0], [3], queries=1)).items.tolist()
    [[1, 2, 0]]

    Raises:
        ValueError: a score is NaN, or an excluded row is outside the catalogue.
    """
    # A copy, because excluded scores are overwritten; + 0.0 turns -0.0 into 0.0.
    values = torch.from_numpy(np.array(scores, np.float32, ndmin=2, copy=True)).add_(0.0)
    count, items = values.shape
    if torch.isnan(values).any():
        raise ValueError("a score is not a number (NaN): check the embeddings")
    if exclude is not None:
        known = exclude.items != NO_ITEM
        if known.any() and not 0 <= exclude.items[known].min() <= exclude.items[known].max() < items:
            raise ValueError(f"an excluded item lies outside the catalogue of {items} items (use -1 for unknown ones)")
        values[torch.from_numpy(exclude.query_rows[known]), torch.from_numpy(exclude.items[known])] = -torch.inf
    kept = min(depth, items)
    rows = np.full((count, depth), NO_ITEM, np.int64)
    best_scores = np.full((count, depth), -np.inf, np.float32)
    if kept:
        best = _best_columns(values, kept)
        best_scores[:, :kept] = values.gather(1, best).numpy()
        rows[:, :kept] = np.where(np.isneginf(best_scores[:, :kept]), NO_ITEM, best.numpy())
    return RankedLists(rows, best_scores)


def _best_columns(values: torch.Tensor, kept: int) -> torch.Tensor:
    """Return the columns of the ``kept`` highest values of each row, best first, the lower column first in a tie.

    ``topk`` orders ties as it likes. Which of the tied columns it keeps matters only in rows where the lowest kept
    value stands once more among the others; these rows are searched by keys without ties.
    """
    highest, columns = torch.topk(values, kept, dim=1)
    lowest = highest[:, -1:]
    torn = (values == lowest).sum(1) > (highest == lowest).sum(1)
    if torn.any():
        every = torch.arange(values.shape[1]).expand(int(torn.sum()), -1)
        columns[torn] = torch.topk(_sort_keys(values[torn], every), kept, dim=1).indices
    order = _sort_keys(values.gather(1, columns), columns).argsort(dim=1, descending=True)
    return columns.gather(1, order)


def _sort_keys(values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return distinct int64 keys that order by value, then the lower column: [rows, n], [rows, n] -> [rows, n].

    The bits of a float32, read as an integer, order like the float once the bits of the negative numbers are flipped.
    """
    bits = values.view(torch.int32)
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(torch.int64)
    return ordered.mul_(1 << 32).sub_(columns)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])

"""Baselines that are counted: popularity, BM25-weighted item-kNN and the rule of the subject.

All of them score every item of the catalogue; ``ml.retrieval.lists.search_scores`` turns the scores into lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import ArrayLike, NDArray

from ml.retrieval.lists import NO_ITEM, Ragged, RankedLists, search_scores

SECONDS_A_DAY = 86_400
PRODUCTS_IN_MEMORY = 1 << 24  # products of events that are summed at once


def popularity_scores(
    item_rows: ArrayLike, times: ArrayLike, cutoff: float, *, window_days: float | None, items: int
) -> NDArray[np.float32]:
    """Count the events of each item before the cut-off [items].

    Args:
        item_rows: [n] catalogue row of each event; -1 (outside the catalogue) is not counted.
        times: [n] seconds since the epoch.
        cutoff: seconds; events at or after the cut-off are not counted.
        window_days: only events of so many days before the cut-off (their first instant included); None: all.
        items: size of the catalogue.

    >>> times = [0, 5 * SECONDS_A_DAY, 9 * SECONDS_A_DAY, 10 * SECONDS_A_DAY]
    >>> popularity_scores([0, 1, 1, 1], times, 10 * SECONDS_A_DAY, window_days=None, items=3).tolist()
    [1.0, 2.0, 0.0]
    >>> popularity_scores([0, 1, 1, 1], times, 10 * SECONDS_A_DAY, window_days=2, items=3).tolist()
    [0.0, 1.0, 0.0]
    """
    rows, seconds = np.asarray(item_rows, np.int64), np.asarray(times, np.float64)
    counted = (rows != NO_ITEM) & (seconds < cutoff)
    if window_days is not None:
        counted &= seconds >= cutoff - window_days * SECONDS_A_DAY
    return np.bincount(rows[counted], minlength=items).astype(np.float32)


def popularity_lists(
    scores: NDArray[np.float32], queries: int, depth: int, exclude: Ragged | None = None
) -> RankedLists:
    """Return the lists of the same scores [items] for every query, without the query's excluded items."""
    return search_scores(
        lambda start, stop: np.broadcast_to(scores, (stop - start, len(scores))),
        queries,
        len(scores),
        depth=depth,
        exclude=exclude,
    )


def rule_lists(
    subjects: NDArray[np.int64],
    groups: Sequence[NDArray[np.int64]],
    popularity: Sequence[NDArray[np.float32]],
    *,
    depth: int,
    exclude: Ragged | None = None,
) -> RankedLists:
    """Return the lists of a rule that knows no user: items that share a group with the subject, then all others.

    The earliest kind of group that an item shares decides; items that share the same are in the order of their
    popularity. The subject is in group 5, as item 0 is:

    >>> rule_lists(np.array([5])[:, None], [np.array([5, 6, 6])], [np.array([3, 1, 9])], depth=3).items.tolist()
    [[0, 2, 1]]

    Args:
        subjects: [queries, kinds] group of the subject, -1 = unknown. Without any known group popularity decides alone.
        groups: for each kind the group of each candidate [candidates], -1 = unknown.
        popularity: counts of each candidate [candidates]; the first decides first.
        exclude: rows of the candidates that may not be retrieved.
    """
    order = np.empty(len(popularity[0]), np.int64)
    order[np.lexsort(popularity[::-1])] = np.arange(len(order))
    last = (order / max(len(order), 1)).astype(np.float32)  # 0 to 1, exclusive

    def scores(start: int, stop: int) -> NDArray[np.float32]:
        total = np.broadcast_to(last, (stop - start, len(last))).copy()
        for worth, (kind, subject) in enumerate(zip(reversed(groups), subjects[start:stop].T[::-1], strict=True), 1):
            np.add(last, worth, out=total, where=(kind == subject[:, None]) & (kind >= 0))
        return total

    return search_scores(scores, len(subjects), len(last), depth=depth, exclude=exclude)


@dataclass(frozen=True)
class ItemKNN:
    """Item-to-item neighbours: an item's score is the sum of its similarities to the items of the history.

    A user's history is a BM25 document and items are its terms. The binary matrix [users, items] gets the weights

        w(u, i) = log(users / (1 + users of i)) * (k1 + 1) / (k1 * (1 - b + b * items of u / mean items) + 1)

    (Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with term frequency 1), so
    popular items and users with long histories count less. The similarity of i and j is the dot product of the columns
    of i and j. Every neighbour counts: on Amazon Sports a limit of a hundred neighbours costs six per cent of the
    recall.

    Attributes:
        weights: sparse [items, users] float32.
    """

    weights: sparse.csr_array

    @staticmethod
    def fit(user_rows: ArrayLike, item_rows: ArrayLike, items: int, *, k1: float = 0.2, b: float = 0.5) -> ItemKNN:
        """Weigh training events; repeated (user, item) events count once.

        Args:
            user_rows: [n] any non-negative user number.
            item_rows: [n] catalogue rows; -1 (outside the catalogue) is left out.
            items: size of the catalogue.
            k1, b: the larger, the more a user's long history discounts its items. The defaults did best on a slice of
                the training period of Amazon Sports (Recall@10 .031, against .025 with 100 and .8).
        """
        users, rows = np.asarray(user_rows, np.int64), np.asarray(item_rows, np.int64)
        users, rows = users[rows != NO_ITEM], rows[rows != NO_ITEM]
        if not len(rows):
            return ItemKNN(sparse.csr_array((items, 1), dtype=np.float32))
        # Only users with events count as documents, whatever numbers they carry.
        documents, users = np.unique(users, return_inverse=True)
        seen = _binary(users, rows, (len(documents), items))
        return ItemKNN(_bm25(seen, k1, b))

    def similarity(self, items: NDArray[np.int64]) -> sparse.csr_array:
        """Return the similarities of the given catalogue rows to every item, sparse [given, items].

        An item is no neighbour of itself, and a similarity that is not positive is left out.
        """
        users = sparse.csr_array(self.weights.T)
        parts = [sparse.csr_array((0, self.weights.shape[0]), dtype=np.float32)]
        # An upper bound on the entries of a row: the events of the item's users.
        cost = self.weights[items].astype(bool).astype(np.int64) @ np.diff(users.indptr)
        cost = np.minimum(cost, self.weights.shape[0])
        for rows in np.split(np.arange(len(items)), np.flatnonzero(np.diff(np.cumsum(cost) // PRODUCTS_IN_MEMORY)) + 1):
            product = (self.weights[items[rows]] @ users).tocoo()
            kept = (product.col != items[rows][product.row]) & (product.data > 0)
            entries = (product.data[kept], (product.row[kept], product.col[kept]))
            parts.append(sparse.csr_array(entries, shape=product.shape))
        return sparse.csr_array(sparse.vstack(parts))

    def lists(
        self, history: Ragged, candidates: NDArray[np.int64], depth: int, exclude: Ragged | None = None
    ) -> RankedLists:
        """Return a list for each history, in rows of ``candidates``; a list ends where the neighbours end.

        A context alone is scored as a history of one item. Repeated items count once, -1 is ignored. Items 0 and 1 go
        together for two users of six:

        >>> model = ItemKNN.fit([0, 0, 1, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3, 2, 3], items=4)
        >>> model.lists(Ragged.from_pairs([0], [0], queries=1), candidates=np.arange(4), depth=3).items.tolist()
        [[1, -1, -1]]

        Args:
            candidates: catalogue rows that are ranked. exclude: rows of the candidates that may not be retrieved.
        """
        known = history.items != NO_ITEM
        engaged, place = np.unique(history.items[known], return_inverse=True)
        similarity = self.similarity(engaged)[:, candidates]
        asked = _binary(history.query_rows[known], place, (history.queries, len(engaged)))

        def scores(start: int, stop: int) -> NDArray[np.float32]:
            dense = (asked[start:stop] @ similarity).toarray()
            return np.where(dense > 0, dense, -np.inf).astype(np.float32)

        return search_scores(scores, history.queries, len(candidates), depth=depth, exclude=exclude)


def _binary(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_array:
    """Return a matrix with 1 at the given places; a repeated place has 1 too."""
    matrix = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _bm25(seen: sparse.csr_array, k1: float, b: float) -> sparse.csr_array:
    """Return BM25 weights of the non-zero entries of a binary [users, items] matrix, transposed to [items, users]."""
    entries = seen.tocoo()
    items_of_user = np.bincount(entries.row, minlength=seen.shape[0])
    users_of_item = np.bincount(entries.col, minlength=seen.shape[1])
    rarity = np.log(seen.shape[0]) - np.log1p(users_of_item)
    length = 1.0 - b + b * items_of_user / items_of_user.mean()
    weights = rarity[entries.col] * (k1 + 1.0) / (k1 * length[entries.row] + 1.0)
    return sparse.csr_array((weights.astype(np.float32), (entries.col, entries.row)), shape=seen.shape[::-1])

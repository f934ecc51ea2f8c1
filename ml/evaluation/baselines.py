"""Baselines that learn no embeddings: popularity and BM25-weighted item-kNN.

Both score every item of the catalogue; ``ml.retrieval.lists.search_scores`` turns the scores into lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import ArrayLike, NDArray

from ml.retrieval.lists import NO_ITEM, Ragged, RankedLists, search_scores

SECONDS_A_DAY = 86_400
SIMILARITIES_IN_MEMORY = 1 << 24  # non-zero products held at once while neighbours are chosen


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


@dataclass(frozen=True)
class ItemKNN:
    """Item-to-item neighbours: an item's score is the sum of its similarities to the items of the history.

    A user's history is a BM25 document and items are its terms. The binary matrix [users, items] gets the weights

        w(u, i) = log(users / (1 + users of i)) * (k1 + 1) / (k1 * (1 - b + b * items of u / mean items) + 1)

    (Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with term frequency 1), so
    popular items and users with long histories count less. The similarity of i and j is the dot product of the columns
    of i and j. Only each item's strongest neighbours are kept.

    Attributes:
        similarity: sparse [items, items] float32; row i holds the neighbours of i, without i itself.
    """

    similarity: sparse.csr_array

    @staticmethod
    def fit(
        user_rows: ArrayLike,
        item_rows: ArrayLike,
        items: int,
        *,
        neighbours: int = 100,
        k1: float = 0.2,
        b: float = 0.5,
    ) -> ItemKNN:
        """Find the neighbours from training events; repeated (user, item) events count once.

        Args:
            user_rows: [n] any non-negative user number.
            item_rows: [n] catalogue rows; -1 (outside the catalogue) is left out.
            items: size of the catalogue.
            neighbours: neighbours kept an item; ties go to the lower row.
            k1, b: the larger, the more a user's long history discounts its items. The defaults did best on a slice of
                the training period of Amazon Sports (Recall@10 .031, against .025 with 100 and .8).
        """
        users, rows = np.asarray(user_rows, np.int64), np.asarray(item_rows, np.int64)
        users, rows = users[rows != NO_ITEM], rows[rows != NO_ITEM]
        if not len(rows):
            return ItemKNN(sparse.csr_array((items, items), dtype=np.float32))
        # Only users with events count as documents, whatever numbers they carry.
        documents, users = np.unique(users, return_inverse=True)
        seen = _binary(users, rows, (len(documents), items))
        return ItemKNN(_strongest_products(_bm25(seen, k1, b), neighbours))

    def scores(self, history: Ragged) -> sparse.csr_array:
        """Return the scores of every item for each history, sparse [queries, items].

        An item that is no neighbour has no entry. A context alone is scored as a history of one item. Repeated items
        count once, -1 is ignored.
        """
        known = history.items != NO_ITEM
        shape = (history.queries, self.similarity.shape[0])
        engaged = _binary(history.query_rows[known], history.items[known], shape)
        return sparse.csr_array(engaged @ self.similarity)

    def lists(
        self, history: Ragged, candidates: NDArray[np.int64], depth: int, exclude: Ragged | None = None
    ) -> RankedLists:
        """Return a list for each history, in rows of ``candidates``; a list ends where the neighbours end.

        Items 0 and 1 go together for two users of six:

        >>> model = ItemKNN.fit([0, 0, 1, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3, 2, 3], items=4)
        >>> model.lists(Ragged.from_pairs([0], [0], queries=1), candidates=np.arange(4), depth=3).items.tolist()
        [[1, -1, -1]]

        Args:
            candidates: catalogue rows that are ranked. exclude: rows of the candidates that may not be retrieved.
        """

        def scores(start: int, stop: int) -> NDArray[np.float32]:
            dense = self.scores(history.slice(start, stop))[:, candidates].toarray()
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


def _strongest_products(weights: sparse.csr_array, neighbours: int) -> sparse.csr_array:
    """Return the largest off-diagonal entries of each row of ``weights @ weights.T``, computed some rows at a time."""
    items = weights.shape[0]
    transposed = sparse.csr_array(weights.T)
    user_events = np.diff(transposed.indptr)
    # Upper bound on the non-zeros of a row of the product: the events of the item's users.
    cost = np.minimum(weights.astype(bool).astype(np.int64) @ user_events, items)
    part_of = np.cumsum(cost) // SIMILARITIES_IN_MEMORY
    starts = np.flatnonzero(np.diff(part_of, prepend=-1))
    parts = []
    for start, stop in zip(starts, [*starts[1:], items], strict=True):
        product = (weights[start:stop] @ transposed).tocoo()
        parts.append(_strongest_of_rows(product, int(start), neighbours))
    return sparse.csr_array(sparse.vstack(parts))


def _strongest_of_rows(product: sparse.coo_array, first_item: int, neighbours: int) -> sparse.csr_array:
    """Return the largest positive entries of each row, without the item itself (column row + first_item)."""
    other = (product.col != product.row + first_item) & (product.data > 0)
    rows, columns, values = product.row[other], product.col[other], product.data[other]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=product.shape[0]))])
    kept = np.arange(len(rows)) - starts[rows] < neighbours
    return sparse.csr_array((values[kept], (rows[kept], columns[kept])), shape=product.shape)

"""The co-engagement graph of users and items: its spectral embedding, and counts of items that go together."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.features.event_log import EventLog

LONGEST_PERIOD = 30 * 86_400.0  # seconds; what a user engages with in one period counts once more, together
PERIODS = 12  # of a log at least: a log of weeks has periods of days
USER_EXPONENT = 0.3  # .5 is the symmetric choice; a lower one found more on two logs of three and less on none
ITEM_EXPONENT = 0.5
POWER_ITERATIONS = 7
OVERSAMPLING = 10
ROWS_AT_ONCE = 1 << 16
ROUNDING = 1e-5  # rows of the decomposition below this share of the longest one are rounding errors


def spectral_embedding(log: EventLog, items: int, dimensions: int, seed: int) -> NDArray[np.float32]:
    """Return unit rows V S of the truncated SVD of the normalised user-item matrix [items, dimensions].

    The matrix is D_u^-.3 X D_i^-.5, with X_ui = 1 where the user engaged with the item. Below the rows of the users
    stand rows of the users in each period (a month, or a twelfth of a shorter log) in which they engaged with more than
    one item, which together weigh as much as the user's: items of one season, trip or session are nearer than items
    that the same people engage with years apart. The right singular vectors of the matrix are the smoothest signals on
    the graph: a linear graph convolution converges to them (Shen et al., 2021, "How Powerful is Graph Convolution for
    Recommendation?"). The cost grows with the number of events, not with the number of pairs of events. An item without
    events gets a zero row. So does an item of which the leading dimensions say nothing (an item in a small component of
    the graph): scaling would turn noise into content.
    """
    known = log.item >= 0
    user, item = log.user_of_event()[known], log.item[known]
    _, period = np.unique(log.seconds[known] // period_seconds(log), return_inverse=True)
    _, first, user_in_period = np.unique(
        user * (period.max(initial=0) + 1) + period, return_index=True, return_inverse=True
    )
    within = _engaged(user_in_period, item, items, rows=len(first))
    several = np.diff(within.indptr) > 1
    owner = user[first[several]]
    weight = np.concatenate([np.ones(log.users), np.bincount(owner, minlength=log.users)[owner] ** -0.5])
    engaged = sp.vstack([_engaged(user, item, items, rows=log.users), within[several]], format="csr")
    vectors = np.zeros((items, dimensions), np.float32)
    rank = min(dimensions, items - 1, log.users - 1)
    if not engaged.nnz or rank < 1:
        return vectors
    by_user = weight * np.maximum(np.asarray(engaged.sum(axis=1)).ravel(), 1) ** -USER_EXPONENT
    by_item = np.maximum(np.asarray(engaged.sum(axis=0)).ravel(), 1) ** -ITEM_EXPONENT
    normalised = sp.csr_matrix(sp.diags_array(by_user) @ engaged @ sp.diags_array(by_item), dtype=np.float32)
    strength, right = leading_right_vectors(normalised, rank, seed)
    scaled = right * strength
    length = np.linalg.norm(scaled, axis=1)
    vectors[:, :rank] = np.where((length > ROUNDING * length.max())[:, None], scaled, 0)
    return unit_rows(vectors)


def leading_right_vectors(
    matrix: sp.csr_matrix, rank: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return about the ``rank`` largest singular values [rank] and their right vectors [columns, rank].

    Subspace iteration from random vectors (Halko et al., 2011, "Finding structure with randomness", algorithm 4.4) on
    the columns' side alone: scikit-learn's ``randomized_svd`` makes vectors of the rows orthogonal, too, which takes
    twice as long where a matrix has twenty rows a column.
    """
    width = min(rank + OVERSAMPLING, matrix.shape[1])
    start = np.random.default_rng(seed).standard_normal((matrix.shape[1], width)).astype(np.float32)
    basis, _ = np.linalg.qr(start)
    for _ in range(POWER_ITERATIONS + 1):
        basis, _ = np.linalg.qr(_gram_product(matrix, basis))
    squares, turn = np.linalg.eigh(basis.T @ _gram_product(matrix, basis))
    largest = np.arange(width)[::-1][:rank]
    return np.sqrt(np.maximum(squares[largest], 0)), basis @ turn[:, largest]


def _gram_product(matrix: sp.csr_matrix, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return A^T A V [columns, width], some rows at a time: A V of all rows takes as much memory as the log."""
    found = np.zeros_like(vectors)
    for begin in range(0, matrix.shape[0], ROWS_AT_ONCE):
        rows = matrix[begin : begin + ROWS_AT_ONCE]
        found += rows.T @ (rows @ vectors)
    return found


def period_seconds(log: EventLog) -> float:
    """Return the length of a period: ``LONGEST_PERIOD``, or one of ``PERIODS`` parts of a shorter log."""
    span = float(np.ptp(log.seconds)) if log.events else 0.0
    return min(LONGEST_PERIOD, span / PERIODS) or LONGEST_PERIOD


def _engaged(row: NDArray[np.int64], item: NDArray[np.int64], items: int, *, rows: int) -> sp.csr_matrix:
    """Return a matrix with 1 where a row engaged with an item [rows, items]."""
    found = sp.csr_matrix((np.ones(len(row), np.float32), (row, item)), shape=(rows, items))
    found.sum_duplicates()
    found.data[:] = 1
    return found


def co_engagement(log: EventLog, items: int, window: int, within_seconds: float = np.inf) -> sp.csr_array:
    """Return the number of times that one user engaged with both items of a pair [items, items], symmetric.

    The items of a pair differ. Two events of a user make a pair when they are at most ``window`` events and less than
    ``within_seconds`` apart.

    One user engages with the items 0, 1 and 2 in this order; with a window of one event, 0 and 2 make no pair:

    >>> import polars as pl
    >>> one = pl.Series(["ann"])
    >>> log = EventLog(one, np.array([0, 3]), np.array([0, 1, 2]), np.ones(3, int), np.zeros((3, 1), int), np.zeros(3))
    >>> co_engagement(log, items=3, window=1).toarray().astype(int).tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    user = log.user_of_event()
    counts = sp.csr_array((items, items), dtype=np.float32)
    for distance in range(1, window + 1):
        left, right = log.item[:-distance], log.item[distance:]
        keep = (user[:-distance] == user[distance:]) & (left >= 0) & (right >= 0) & (left != right)
        keep &= log.seconds[distance:] - log.seconds[:-distance] < within_seconds
        if not keep.any():
            continue
        ones = np.ones(int(keep.sum()), np.float32)
        counts = counts + sp.csr_array((ones, (left[keep], right[keep])), shape=(items, items))
    return (counts + counts.T).tocsr()


def unit_rows(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the rows to unit length; zero rows stay zero.

    >>> unit_rows(np.array([[3, 4], [0, 0]], np.float32)).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return (matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)).astype(np.float32)

"""The items of predicted advertisers: what the service proposes of them, and what its arm of the market proposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Item rows [n] to how well each item fits the query [n]."""


def best_of_advertisers(
    owned: Sequence[NDArray[np.int64]],
    scores_of: Scores,
    *,
    quota: int,
    wanted: int,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows and the scores of the best items, best first, at most ``quota`` of an advertiser.

    Of two equal scores the lower row comes first.

    Args:
        owned: the item rows of each predicted advertiser; no row twice.
        wanted: at most so many items. allowed: [items] the items that count; None: all.

    The first advertiser owns the items 0, 1 and 2, the second one the item 3:

    >>> fit = np.array([.9, .8, .7, .1], np.float32)
    >>> best_of_advertisers([np.array([0, 1, 2]), np.array([3])], lambda rows: fit[rows], quota=2, wanted=9)[0].tolist()
    [0, 1, 3]
    """
    if not owned:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows = np.concatenate(owned)
    owner = np.repeat(np.arange(len(owned)), [len(each) for each in owned])
    if allowed is not None:
        kept = allowed[rows]
        rows, owner = rows[kept], owner[kept]
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    scores = scores_of(rows)
    order = np.lexsort((rows, -scores))
    chosen = order[_place_in_group(owner[order]) < quota][:wanted]
    return rows[chosen], scores[chosen]


def _place_in_group(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each element, the number of earlier elements of the same group."""
    order = np.argsort(group, kind="stable")
    first = np.r_[True, np.diff(group[order]) != 0]
    start = np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - start
    return place

"""How often each item stands in lists, and offsets on the scores that even this out.

The exposure of an item is its number of places in the lists of a sample of users, over the mean of all items. An offset
by exposure takes from the items that many lists hold already. An offset by the number of events takes from popular
items, whether or not the lists hold them, and costs more recall for as much diversity (docs/experiments.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.retrieval.lists import NO_ITEM, search

USERS = 1000  # of the sample
LENGTH = 100  # of the lists that are counted
DEPTH = 4 * LENGTH  # an item below these places reaches no list: an offset is small beside the scores between
ROUNDS = 8
LEAST = 0.01  # exposures far below this share of the mean are alike


def exposure_offsets(users: NDArray[np.float32], items: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Return what is added to the score of each item for every user [items], at most 0.

    The offset of an item is ``-strength * log(1 + exposure / LEAST)``, with the exposure in the lists that the offsets
    themselves lead to. These are found by ``ROUNDS`` of lists and offsets, each with the mean of its exposure and the
    one of the round before.

    Args:
        users: [users, width] embeddings of the sample. items: [items, width].
        strength: in units of the score.
    """
    offsets = np.zeros(len(items), np.float32)
    if not (len(users) and len(items) and strength):
        return offsets
    deep = search(users, items, min(DEPTH, len(items)))
    found, length = np.maximum(deep.items, 0), min(LENGTH, len(items))
    exposure = np.zeros(len(items))
    for number in range(ROUNDS):
        scores = np.where(deep.items == NO_ITEM, -np.inf, deep.scores + offsets[found])
        best = np.argpartition(-scores, length - 1, axis=1)[:, :length]
        slots = np.bincount(np.take_along_axis(found, best, axis=1).ravel(), minlength=len(items))
        counted = slots * (len(items) / slots.sum())
        exposure = (exposure + counted) / 2 if number else counted
        offsets = (-strength * np.log1p(exposure / LEAST)).astype(np.float32)
    return offsets

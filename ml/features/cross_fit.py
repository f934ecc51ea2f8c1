"""Cross-fitted content: in training, a user's positives are scored under a graph that the user is not part of.

The co-engagement graph of the training period holds the very pairs that the examples of earlier cut-offs ask for: a
history and its positive are neighbours in the graph because this user engaged with both. After deployment, the pairs to
predict are not in the graph yet, so a model trained under that graph would trust content far too much. Therefore the
users are dealt into folds, and each fold learns under the graph of the other folds, rotated onto the full graph
(orthogonal Procrustes). The full graph serves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.co_engagement import spectral_embedding
from ml.features.content import ContentBasis, freeze
from ml.features.event_log import EventLog
from ml.features.items import ItemFeatures


@dataclass(frozen=True)
class CrossFit:
    """Content of the catalogue, as each fold of the users sees this content in training."""

    fold_of_user: NDArray[np.int64]  # [users of the log]
    content: list[NDArray[np.float32]]  # a fold: [items, width]
    cold_content: list[NDArray[np.float32]]  # a fold: [items, width]

    @property
    def folds(self) -> int:
        return len(self.content)


def uncrossed(features: ItemFeatures, users: int) -> CrossFit:
    """Put all users into one fold, which sees the content that serves."""
    return CrossFit(np.zeros(users, np.int64), [features.content], [features.cold_content])


def deal_folds(users: int, folds: int, seed: int) -> NDArray[np.int64]:
    """Draw the fold of each user of a log [users]; all users are in fold 0 if ``folds`` is 1."""
    return np.random.default_rng([seed, folds]).integers(0, folds, users)


def cross_fit(items: pl.DataFrame, log: EventLog, basis: ContentBasis, *, folds: int, seed: int) -> CrossFit:
    """Build, for each fold, the content of the catalogue without the events of the fold's own users.

    Args:
        items: the catalogue, sorted by item_id; ``log.item`` are its rows. log: events of the training period.
        basis: the content of all users together. folds: at least two.
    """
    fold_of_user = deal_folds(log.users, folds, seed)
    fold_of_event = fold_of_user[log.user_of_event()]
    whole = basis.graph_of(items["item_id"])
    views = []
    for fold in range(folds):
        others = replace(log, item=np.where(fold_of_event == fold, -1, log.item))
        graph = spectral_embedding(others, len(items), basis.graph_width, seed)
        views.append(freeze(items, rotated_onto(whole, graph), basis.text).content_of(items))
    return CrossFit(fold_of_user, [content for content, _ in views], [cold for _, cold in views])


def rotated_onto(target: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotate ``vectors`` [items, width] so that the rows that are not zero in both matrices come nearest to ``target``.

    The graph of the others has the same two items a quarter turn away, and a third item:

    >>> target = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    >>> turned = np.array([[0, 1], [-1, 0], [0, -1]], np.float32)
    >>> rotated_onto(target, turned).round().astype(int).tolist()
    [[1, 0], [0, 1], [-1, 0]]
    """
    from scipy.linalg import orthogonal_procrustes

    both = target.any(axis=1) & vectors.any(axis=1)
    if not both.any():
        return vectors
    rotation, _ = orthogonal_procrustes(vectors[both].astype(np.float64), target[both].astype(np.float64))
    return (vectors @ rotation).astype(np.float32)

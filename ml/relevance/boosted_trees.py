"""Gradient-boosted trees as arrays: what is left of a scikit-learn fit when only its answers are needed.

The arrays need no scikit-learn to be read, and their file holds no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

Values = NDArray[np.float64]
_ROWS = 2_000  # at a time: their places in all trees stay in the processor's cache


@dataclass(frozen=True)
class BoostedTrees:
    """Trees whose leaves add up.

    A leaf is its own child on both sides, so every row takes ``depth`` steps in every tree.
    """

    first: NDArray[np.int32]  # [trees] the root of each
    feature: NDArray[np.int32]  # [nodes] that the node asks for
    threshold: Values  # [nodes] a value up to it goes left
    missing_left: NDArray[np.bool_]  # [nodes] whether a missing value goes left
    left: NDArray[np.int32]  # [nodes]
    right: NDArray[np.int32]  # [nodes]
    value: Values  # [nodes] of a leaf
    depth: NDArray[np.int64]  # [] of the deepest leaf
    baseline: Values  # [] what the leaves add to
    probability: NDArray[np.bool_]  # [] whether the sum is the log odds of a probability

    @classmethod
    def of(cls, fitted: HistGradientBoostingClassifier | HistGradientBoostingRegressor) -> BoostedTrees:
        """Return the trees of a regression, or of a classifier of two classes, without categorical features."""
        nodes = [tree.nodes for [tree] in fitted._predictors]
        sizes = np.array([len(each) for each in nodes])
        first = np.cumsum(sizes) - sizes
        every, offset = np.concatenate(nodes), np.repeat(first, sizes)
        own, leaf = np.arange(len(every)), every["is_leaf"].astype(bool)
        return cls(
            first=first.astype(np.int32),
            feature=np.where(leaf, 0, every["feature_idx"]).astype(np.int32),
            threshold=every["num_threshold"].astype(np.float64),
            missing_left=every["missing_go_to_left"].astype(bool),
            left=np.where(leaf, own, every["left"] + offset).astype(np.int32),
            right=np.where(leaf, own, every["right"] + offset).astype(np.int32),
            value=every["value"].astype(np.float64),
            depth=np.array(every["depth"].max(), np.int64),
            baseline=np.array(np.ravel(fitted._baseline_prediction)[0], np.float64),
            probability=np.array(hasattr(fitted, "predict_proba")),
        )

    def predict(self, features: NDArray[np.floating[Any]]) -> Values:
        """Return the value of each row, or the probability of the class 1 [rows]; a missing feature is NaN."""
        parts = [features[start : start + _ROWS] for start in range(0, len(features), _ROWS)]
        total = np.concatenate([self._sums(part) for part in parts]) if parts else np.zeros(0)
        return np.asarray(expit(total), np.float64) if self.probability else total

    def _sums(self, features: NDArray[np.floating[Any]]) -> Values:
        rows, width = features.shape
        flat, begin = features.astype(np.float64).ravel(), np.arange(rows) * width
        node = np.repeat(self.first[:, None], rows, axis=1)  # [trees, rows]
        for _ in range(int(self.depth)):
            asked = flat.take(self.feature.take(node) + begin)
            goes_left = (asked <= self.threshold.take(node)) | (np.isnan(asked) & self.missing_left.take(node))
            node = np.where(goes_left, self.left.take(node), self.right.take(node))
        total = np.full(rows, self.baseline)
        for leaves in self.value.take(node):  # tree by tree, as scikit-learn adds them: equal to the last bit
            total += leaves
        return total

    def save(self, path: Path) -> None:
        """Write the trees into one file."""
        np.savez(path, allow_pickle=False, **dict(self._arrays()))

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for field in fields(self):
            yield field.name, getattr(self, field.name)

    @classmethod
    def load(cls, path: Path) -> BoostedTrees:
        """Read what ``save`` has written.

        Raises:
            OSError, ValueError, KeyError: the file is missing or damaged.
        """
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})

"""Calibration: a score that means what it says, in each cell: a surface and a content type.

Each cell has a curve of its own. With few labels the curve would follow their noise, so it is drawn towards the curve
of all cells together: with n labels it counts n / (n + ``pooled_labels``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Values = NDArray[np.float64]
CURVE_POINTS = 20
ERROR_BINS = 10
UNKNOWN_TYPE = "unknown"
TILT = 1e-6
"""Slope that is added where a curve is level, so that calibration never makes two scores equal."""


def cells_of(candidates: pl.DataFrame) -> pl.Series:
    """Return the cell of each candidate, ``<surface>.<content_type>``, from the columns surface and content_type.

    >>> cells_of(pl.DataFrame({"surface": ["search", "search"], "content_type": ["video", None]})).to_list()
    ['search.video', 'search.unknown']
    """
    content_type = pl.col("content_type").fill_null(UNKNOWN_TYPE)
    return candidates.select(pl.concat_str("surface", content_type, separator=".").alias("cell"))["cell"]


@dataclass(frozen=True)
class Curve:
    """A curve that rises from a score to the mean target, linear between its points and flat beyond."""

    scores: Values  # [points] ascending
    targets: Values  # [points]

    @classmethod
    def fit(cls, scores: Values, targets: Values, weights: Values) -> Curve:
        """Fit a curve to labels [labels]: means of equal shares of the labels by score, made monotone.

        Source: Zadrozny and Elkan, 2002, "Transforming classifier scores into accurate multiclass probability
        estimates" (isotonic regression); on the means of at most ``CURVE_POINTS`` shares instead of single labels, so
        that the curve has no steps.
        """
        from sklearn.isotonic import IsotonicRegression

        shares = equal_shares(scores, CURVE_POINTS)
        centre = np.array([np.average(scores[rows], weights=weights[rows]) for rows in shares])
        mean = np.array([np.average(targets[rows], weights=weights[rows]) for rows in shares])
        mass = np.array([weights[rows].sum() for rows in shares])
        level = np.asarray(IsotonicRegression().fit(centre, mean, mass).predict(centre), np.float64)
        scores_with_ends = np.concatenate([[scores.min()], centre, [scores.max()]])
        return cls(scores_with_ends, np.concatenate([level[:1], level, level[-1:]]) + TILT * scores_with_ends)

    def of(self, scores: Values) -> Values:
        """Return the calibrated scores."""
        return np.interp(scores, self.scores, self.targets)


@dataclass(frozen=True)
class CellCurve:
    """The curve of one cell, and its weight against the pooled curve, 0 to 1."""

    curve: Curve
    weight: float


@dataclass(frozen=True)
class Calibration:
    """The curve of all cells together, and the curve of each cell."""

    pooled: Curve
    cells: Mapping[str, CellCurve]

    @classmethod
    def fit(
        cls, scores: Values, targets: Values, weights: Values, *, cells: pl.Series, pooled_labels: float
    ) -> Calibration:
        """Fit the curves to labels that the scoring model was not fitted on.

        Args:
            scores, targets, weights, cells: [labels].
            pooled_labels: labels of a cell with which its curve counts as much as the pooled one.
        """
        curves = {}
        for cell in cells.unique().sort():
            rows = (cells == cell).arg_true().to_numpy()
            weight = len(rows) / (len(rows) + pooled_labels)
            curves[cell] = CellCurve(Curve.fit(scores[rows], targets[rows], weights[rows]), weight)
        return cls(Curve.fit(scores, targets, weights), curves)

    def of(self, scores: Values, cells: pl.Series) -> Values:
        """Return the calibrated scores [candidates]; a cell that no label had gets the pooled curve.

        Args:
            scores, cells: [candidates].
        """
        names = cells.unique().sort()
        return self.of_codes(scores, names.to_list(), names.search_sorted(cells).to_numpy())

    def of_codes(self, scores: Values, names: Sequence[str], codes: NDArray[np.integer[Any]]) -> Values:
        """Return the calibrated scores [candidates] as ``of`` does, of cells that are numbered.

        Args:
            names: cells. codes: [candidates] the place of each candidate's cell in ``names``.
        """
        calibrated = self.pooled.of(scores)
        for code in np.unique(codes):
            own = self.cells.get(names[code])
            if own is not None:
                rows = codes == code
                calibrated[rows] += own.weight * (own.curve.of(scores[rows]) - calibrated[rows])
        return calibrated


def calibration_error(scores: Values, targets: Values, weights: Values) -> float:
    """Return the expected calibration error of scores against labels, freed of the noise of the labels.

    In each of ``ERROR_BINS`` equal shares of the labels by score, the squared difference of mean score and mean target
    less its sampling variance; the root of the weighted mean, 0 where the noise explains the whole. The plain error
    would be above .02 for perfect scores with 500 labels. NaN with fewer than two labels a bin.

    Source: Kumar, Liang and Ma, 2019, "Verified Uncertainty Calibration", the debiased estimator.

    Args:
        scores, targets, weights: [labels] on the scale of the targets, 0 to 1.
    """
    shares = equal_shares(scores, ERROR_BINS)
    if not shares or min(map(len, shares)) < 2:
        return float("nan")
    squared = mass = 0.0
    for rows in shares:
        share = weights[rows] / weights[rows].sum()
        error = float(share @ (targets[rows] - scores[rows]))
        spread = float((share**2) @ (targets[rows] - scores[rows] - error) ** 2)
        variance = spread / max(1 - float((share**2).sum()), 1e-9)
        squared += float(weights[rows].sum()) * (error**2 - variance)
        mass += float(weights[rows].sum())
    return float(np.sqrt(max(squared / mass, 0.0)))


def reliability(scores: Values, targets: Values, weights: Values) -> pl.DataFrame:
    """Return the points of a reliability curve: score, target, labels; one row an equal share of the labels."""
    shares = equal_shares(scores, ERROR_BINS)
    return pl.DataFrame(
        {
            "score": [float(np.average(scores[rows], weights=weights[rows])) for rows in shares],
            "target": [float(np.average(targets[rows], weights=weights[rows])) for rows in shares],
            "labels": [len(rows) for rows in shares],
        },
        schema={"score": pl.Float64, "target": pl.Float64, "labels": pl.Int64},
    )


def equal_shares(scores: Values, shares: int) -> list[NDArray[np.int64]]:
    """Return the rows of the labels in order of score, cut into at most ``shares`` parts of equal size."""
    order = np.argsort(scores, kind="stable")
    return [rows for rows in np.array_split(order, min(shares, len(order)) or 1) if len(rows)]

"""Recall against diversity: the settings that no other setting beats in both, and the choice of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class SweepPoint:
    """One pair of log-Q weights, and the figures on the validation slice of a model trained under this pair."""

    alpha_positive: float
    alpha_negative: float
    recall_at_10: float  # nan at a K that the catalogue does not have
    recall_at_100: float
    advertiser_hit_at_10: float  # nan where no advertiser is known
    diversity90: float
    seconds: float  # of the fit

    @property
    def recall(self) -> float:
        """Return Recall@100, or Recall@10 of a smaller catalogue.

        Where the catalogue has neither, the recall is 0, so that diversity decides.
        """
        return next((value for value in (self.recall_at_100, self.recall_at_10) if value == value), 0.0)

    @property
    def label(self) -> str:
        """Return a label such as ``0 / 0.75``: the weight of the positive / the weight of the negatives."""
        return f"{self.alpha_positive:g} / {self.alpha_negative:g}"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return whether each point is on the front: no other is as good in both values and better in one. More is better.

    Equal points are on the front together or not at all.

    >>> pareto_front([(1, 5), (3, 3), (2, 3), (3, 3)])
    [True, True, False, True]
    """
    return [
        not any(first >= a and second >= b and (first, second) != (a, b) for first, second in points) for a, b in points
    ]


def on_front(points: Sequence[SweepPoint]) -> list[bool]:
    """Return whether each point is on the front of Recall@100 and diversity90."""
    return pareto_front([(point.recall, point.diversity90) for point in points])


def most_diverse(points: Sequence[SweepPoint], tolerance: float) -> SweepPoint:
    """Return the most diverse point among those within ``tolerance``, a share, of the best Recall@100.

    Of equally diverse points, the one with more recall is taken, so the result is always on the front.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("a sweep without points has no best one: give at least one alpha of each kind")
    enough = (1 - tolerance) * max(point.recall for point in points)
    near = [point for point in points if point.recall >= enough]
    return max(near, key=lambda point: (point.diversity90, point.recall))


def points_frame(points: Sequence[SweepPoint]) -> pl.DataFrame:
    """Return one row a point, with a column that tells whether the point is on the front."""
    return pl.DataFrame(points).with_columns(on_front=pl.Series(on_front(points), dtype=pl.Boolean))

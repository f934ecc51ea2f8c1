"""Recall against diversity: which settings no other beats in both, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class SweepPoint:
    """One pair of log-Q weights and what a model trained under it reached on the validation slice."""

    alpha_positive: float
    alpha_negative: float
    recall_at_10: float  # nan at a K that the catalogue does not have
    recall_at_100: float
    advertiser_hit_at_10: float  # nan where no advertiser is known
    diversity90: float
    seconds: float  # of the fit

    @property
    def recall(self) -> float:
        """Recall@100, or Recall@10 of a smaller catalogue; 0 where the catalogue has neither: diversity decides."""
        return next((value for value in (self.recall_at_100, self.recall_at_10) if value == value), 0.0)

    @property
    def label(self) -> str:
        """Such as ``0 / 0.75``: of the positive / of the negatives."""
        return f"{self.alpha_positive:g} / {self.alpha_negative:g}"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the front: no other is as good in both values and better in one. More is better.

    Equal points are on it together or not at all.

    >>> pareto_front([(1, 5), (3, 3), (2, 3), (3, 3)])
    [True, True, False, True]
    """
    return [
        not any(first >= a and second >= b and (first, second) != (a, b) for first, second in points) for a, b in points
    ]


def on_front(points: Sequence[SweepPoint]) -> list[bool]:
    """Which points are on the front of Recall@100 and diversity90."""
    return pareto_front([(point.recall, point.diversity90) for point in points])


def most_diverse(points: Sequence[SweepPoint], tolerance: float) -> SweepPoint:
    """The most diverse point among those within ``tolerance``, a share, of the best Recall@100.

    Of equally diverse ones it is the one of more recall, so it is always on the front.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("a sweep without points has no best one: give at least one alpha of each kind")
    enough = (1 - tolerance) * max(point.recall for point in points)
    near = [point for point in points if point.recall >= enough]
    return max(near, key=lambda point: (point.diversity90, point.recall))


def points_frame(points: Sequence[SweepPoint]) -> pl.DataFrame:
    """One row a point, with whether it is on the front."""
    return pl.DataFrame(points).with_columns(on_front=pl.Series(on_front(points), dtype=pl.Boolean))

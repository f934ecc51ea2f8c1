"""The fate of candidates in the funnel, by surface and generator, counted from an impression log.

A candidate is logged with the furthest stage that the candidate reached. A candidate that is logged with a probability
counts as often as its inverse: Horvitz and Thompson, 1952, "A generalization of sampling without replacement from a
finite universe". Intervals are of a bootstrap over users: the
candidates of a request compete, and a user's requests resemble each other, so they are drawn together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.intervals import Interval, percentile_interval
from ml.evaluation.report_rows import ReportRow, Segment

UNNAMED = "unnamed"
"""The generator of a candidate whose log names none."""


@dataclass(frozen=True)
class Stages:
    """The stages of the funnel, in order, and the three that a report goes by.

    Attributes:
        names: from the retrieval on; a candidate of a later stage has passed all earlier ones.
        delivered, clicked, converted: names of stages.
    """

    names: Sequence[str]
    delivered: str = "impressed"
    clicked: str = "clicked"
    converted: str = "converted"

    def place(self, name: str) -> int:
        return list(self.names).index(name)


def funnel_rows(
    impressions: pl.DataFrame, stages: Stages, *, samples: int, seed: int, segment: Segment = Segment.surface
) -> list[ReportRow]:
    """Return the outcomes of each generator on each surface as rows, whose model is the generator.

    Each generator has ``retrieved`` and ``delivered`` candidates, the ``survival_rate`` (delivered over retrieved), the
    ``share_of_impressions`` of its surface, the ``click_rate`` (clicked over delivered), the ``conversion_rate``
    (converted over clicked), and ``reached_<stage>``, the share of its candidates that reached a stage or a later one.
    A rate without a denominator has no value. In this log one of two candidates of the generator "old" is delivered:

    >>> log = {"user_id": ["ann", "ann"], "surface": ["home_feed"] * 2, "source": ["old"] * 2}
    >>> log |= {"stage": ["retrieved", "impressed"], "inclusion_probability": [None, None]}
    >>> stages = Stages(["retrieved", "impressed", "clicked", "converted"])
    >>> rows = funnel_rows(pl.DataFrame(log), stages, samples=0, seed=0)
    >>> {row.metric: row.value for row in rows if row.metric in ("delivered", "survival_rate", "click_rate")}
    {'delivered': 1.0, 'survival_rate': 0.5, 'click_rate': 0.0}

    Args:
        impressions: user_id, surface, source (null: ``UNNAMED``), stage, inclusion_probability (null: 1).
        samples: of the bootstrap over users.
        segment: the column that the candidates are told apart by, in place of the surface.
    """
    order = {name: place for place, name in enumerate(stages.names)}
    logged = impressions.select(
        pl.col(segment.value).alias("group"),
        "user_id",
        pl.col("source").fill_null(UNNAMED),
        reached=pl.col("stage").replace_strict(order, return_dtype=pl.Int64),
        weight=1 / pl.col("inclusion_probability").cast(pl.Float64).fill_null(1.0),
    )
    rows = []
    for (group,), of_group in logged.sort("group").group_by("group", maintain_order=True):
        counts = _Counts.of(of_group, len(stages.names))
        for source, figures in counts.figures(stages, samples, seed).items():
            rows += [
                ReportRow.of(source, metric, interval, segment=segment, group=str(group))
                if np.isfinite(interval.estimate)
                else ReportRow(source, metric, None, segment=segment, group=str(group))
                for metric, interval in figures.items()
            ]
    return rows


@dataclass(frozen=True)
class _Counts:
    """The candidates of one group, such as a surface.

    Attributes:
        reached: [users, sources, stages] candidates that reached the stage or a later one, by their weights.
    """

    sources: list[str]
    reached: NDArray[np.float64]

    @classmethod
    def of(cls, logged: pl.DataFrame, stages: int) -> _Counts:
        user = logged["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
        sources = logged["source"].unique().sort()
        source = logged["source"].rank("dense").to_numpy().astype(np.int64) - 1
        at = np.zeros((int(user.max()) + 1, len(sources), stages))
        np.add.at(at, (user, source, logged["reached"].to_numpy()), logged["weight"].to_numpy())
        return cls(sources.to_list(), at[:, :, ::-1].cumsum(axis=2)[:, :, ::-1])

    def figures(self, stages: Stages, samples: int, seed: int) -> dict[str, dict[str, Interval]]:
        """Return the figures of each source, by name."""
        estimate = _rates(self.reached.sum(axis=0), stages)
        flat = self.reached.reshape(len(self.reached), -1)
        random = np.random.default_rng(seed)
        drawn = []
        for _ in range(samples):
            weight = np.bincount(random.integers(0, len(flat), len(flat)), minlength=len(flat))
            drawn.append(_rates((weight @ flat).reshape(self.reached.shape[1:]), stages))
        return {
            source: {
                metric: percentile_interval(float(values[row]), [each[metric][row] for each in drawn])
                for metric, values in estimate.items()
            }
            for row, source in enumerate(self.sources)
        }


def _rates(reached: NDArray[np.float64], stages: Stages) -> Mapping[str, NDArray[np.float64]]:
    """Return every figure [sources] from the counts [sources, stages]; NaN without a denominator."""
    retrieved, delivered = reached[:, 0], reached[:, stages.place(stages.delivered)]
    clicked, converted = (reached[:, stages.place(name)] for name in (stages.clicked, stages.converted))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "retrieved": retrieved,
            "delivered": delivered,
            "survival_rate": delivered / retrieved,
            "share_of_impressions": delivered / delivered.sum(),
            "click_rate": clicked / delivered,
            "conversion_rate": converted / clicked,
            **{f"reached_{name}": reached[:, place] / retrieved for place, name in enumerate(stages.names) if place},
        }

"""The rows of a report: one figure of one model each. A report's table and its MLflow runs hold the same rows.

The full name of a figure names the protocol that measured the figure, so that one name never means two things:
``item.recall@10`` is the recall of next items, ``context.related_pins.recall@10`` that of requests beside an item.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:  # ml.evaluation.intervals loads torch, which a table does not need
    from ml.evaluation.intervals import Interval

SCHEMA = {
    "model": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "segment": pl.String(),
    "group": pl.String(),
}
TRAINED_EXAMPLES, FUTURES, FUNNELS = "trained_examples", "futures", "funnels"
"""How many examples a model may have learnt from at most; futures of a user, and funnels of a request, that the oracle
has seen."""
TWO_SIDED = (
    "delivered_ratio",
    "survival_ratio",
    "relevance_ratio",
    "shown_relevance_lift",
    "conversions_lift",
    "spend_lift",
    "roas_lift",
)
"""Figures of one arm against another, which stand under no arm's name."""
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_\-]")


class Protocol(StrEnum):
    """The ways of measuring, each with queries of its own."""

    item = "item"  # next items of users with conversions in the newest window; the whole catalogue is ranked
    context = "context"  # requests beside an item in the newest window
    advertiser = "advertiser"  # next advertisers of users with conversions in the newest window
    market = "market"  # candidates of each generator on their way through the funnel, in the newest window
    relevance = "relevance"  # relevance of candidates: its labels, its model, the funnel, and the gap to the holdout
    daily = "daily"  # the conversions of a day, by the states of the day before


class Segment(StrEnum):
    """The part of the queries that a figure is measured on."""

    all = "all"
    surface = "surface"
    country = "country"
    content_type = "content_type"
    cell = "cell"  # a surface and a content type; the group is "<surface>.<content type>"
    category = "category"  # the first level of the path
    conversion = "conversion"
    history_length = "history_length"
    novelty = "novelty"  # whether the user has been with the advertiser before
    popularity_weight = "popularity_weight"  # all queries, under another index.popularity_weight


@dataclass(frozen=True)
class ReportRow:
    """One figure of one model.

    Attributes:
        metric: the figure's name, such as ``recall@100``; see ``Metrics.figures``.
        value: None where there was nothing to measure.
        low, high: bounds of the 95 % interval; None where no interval was asked for.
        group: which group of the segment, such as the country; empty for ``Segment.all``.
    """

    model: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    segment: Segment = Segment.all
    group: str = ""

    @classmethod
    def of(
        cls, model: str, metric: str, interval: Interval, *, segment: Segment = Segment.all, group: str = ""
    ) -> ReportRow:
        """Return a row with bounds; a figure or a bound that is no finite number is None."""
        estimate, low, high = map(_finite, (interval.estimate, interval.low, interval.high))
        return cls(str(model), metric, estimate, low, high, segment, group)

    def name(self, protocol: Protocol) -> str:
        """Return the full name of the figure in the run of its model.

        A surface, and a surface with a content type, stand in the name by themselves, any other segment with its kind.

        >>> ReportRow("contextual", "recall@10", 0.5, segment=Segment.surface, group="search").name(Protocol.context)
        'context.search.recall@10'
        >>> ReportRow("contextual", "recall@10", 0.5, segment=Segment.country, group="US").name(Protocol.item)
        'item.country.US.recall@10'
        >>> ReportRow("model", "ece", 0.01, segment=Segment.cell, group="search.video").name(Protocol.relevance)
        'relevance.search.video.ece'
        """
        return ".".join([protocol.value, *self._surface, *self._group, self.metric])

    def name_beside_models(self, protocol: Protocol) -> str:
        """Return the full name of the figure with its model, for one list of all models' figures.

        >>> row = ReportRow("rule", "recall@10", 0.5, segment=Segment.surface, group="related_pins")
        >>> row.name_beside_models(Protocol.context)
        'context.related_pins.rule.recall@10'
        """
        return ".".join([protocol.value, *self._surface, _in_a_name(self.model), *self._group, self.metric])

    @property
    def bounds(self) -> dict[str, float]:
        """Return the bounds of the interval by the end of their names, ``.low`` and ``.high``, where there are any."""
        found = {".low": self.low, ".high": self.high}
        return {end: value for end, value in found.items() if value is not None}

    @property
    def _surface(self) -> list[str]:
        if self.segment is Segment.cell:
            return [_in_a_name(part) for part in self.group.split(".")]
        return [_in_a_name(self.group)] if self.segment is Segment.surface else []

    @property
    def _group(self) -> list[str]:
        alone = self.segment in (Segment.all, Segment.surface, Segment.cell)
        return [] if alone else [self.segment.value, _in_a_name(self.group)]


def _in_a_name(text: str) -> str:
    """Return text as one part of a dotted name: any other character as its bytes, so that two texts stay two names.

    >>> _in_a_name("US"), _in_a_name("Côte")
    ('US', 'C_C3_B4te')
    """
    return NOT_IN_A_NAME.sub(lambda found: "".join(f"_{byte:02X}" for byte in found[0].encode()), text)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def less(k: int, other: str) -> str:
    """Return the name of the figure "recall of this model at K, less that of another model".

    >>> less(10, "rule")
    'recall@10.less.rule'
    """
    return f"recall@{k}.less.{other}"


def over(metric: str, other: str) -> str:
    """Return the name of a ratio or a lift of this arm over another arm of the market.

    >>> over("roas_lift", "none")
    'roas_lift.over.none'
    """
    return f"{metric}.over.{other}"


def rows_of(
    model: str, figures: Mapping[str, float | None], segment: Segment = Segment.all, group: str = ""
) -> list[ReportRow]:
    """Return the figures of one model as rows; a figure that is no finite number is None."""
    return [
        ReportRow(str(model), metric, _finite(value), segment=segment, group=group) for metric, value in figures.items()
    ]


def segment_rows(model: str, metric: str, segment: Segment, recall: pl.DataFrame) -> list[ReportRow]:
    """Return a figure of every group, and its positives, as rows; ``recall``: segment, positives, recall."""
    return [
        row
        for group, positives, value in recall.select("segment", "positives", "recall").rows()
        for row in rows_of(model, {metric: value, "positives": positives}, segment, str(group))
    ]


def with_bounds(rows: Sequence[ReportRow], bounded: Sequence[ReportRow]) -> list[ReportRow]:
    """Return ``rows``, each of which is replaced where ``bounded`` has the same figure with bounds."""
    better = {(row.model, row.metric, row.segment, row.group): row for row in bounded}
    return [better.get((row.model, row.metric, row.segment, row.group), row) for row in rows]


def rows_frame(rows: Sequence[ReportRow]) -> pl.DataFrame:
    """Return the rows as a table: model, metric, value, low, high, segment, group."""
    values = [(row.model, row.metric, row.value, row.low, row.high, row.segment.value, row.group) for row in rows]
    return pl.DataFrame(values, schema=SCHEMA, orient="row")


def rows_of_frame(frame: pl.DataFrame) -> list[ReportRow]:
    """Return the rows that ``rows_frame`` has turned into a table.

    A table of an earlier version of adseq has neither bounds nor segments: its rows are of all queries.
    """
    missing = [pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in frame.columns]
    return [
        ReportRow(model, metric, value, low, high, Segment(segment or Segment.all), group or "")
        for model, metric, value, low, high, segment, group in frame.with_columns(missing).select(list(SCHEMA)).rows()
    ]


def figures_by_model(rows: Iterable[ReportRow], protocol: Protocol) -> dict[str, dict[str, float | None]]:
    """Return the figures of each model by full name, in the order of the rows."""
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        name = row.name(protocol)
        bounds = {f"{name}{end}": value for end, value in row.bounds.items()}
        found.setdefault(row.model, {}).update({name: row.value, **bounds})
    return found

"""The rows of a report: one figure of one model each. A report's table and its MLflow runs hold the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

SCHEMA = {"model": pl.String(), "metric": pl.String(), "value": pl.Float64()}


@dataclass(frozen=True)
class ReportRow:
    """One figure of one model.

    Attributes:
        metric: the figure's name, such as ``recall@100``; see ``Metrics.figures``.
        value: None where there was nothing to measure.
    """

    model: str
    metric: str
    value: float | None


def rows_of(model: str, figures: Mapping[str, float | None]) -> list[ReportRow]:
    """Return the figures of one model as rows."""
    return [ReportRow(str(model), metric, value) for metric, value in figures.items()]


def rows_frame(rows: Sequence[ReportRow]) -> pl.DataFrame:
    """Return the rows as a table: model, metric, value."""
    return pl.DataFrame([(row.model, row.metric, row.value) for row in rows], schema=SCHEMA, orient="row")


def figures_by_model(rows: Iterable[ReportRow]) -> dict[str, dict[str, float | None]]:
    """Return the figures of each model by name, in the order of the rows."""
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        found.setdefault(row.model, {})[row.metric] = row.value
    return found

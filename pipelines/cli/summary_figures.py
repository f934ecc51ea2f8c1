"""Every figure of a home under a stable dotted name; docs/metrics.md lists the names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import polars as pl

from assets.steps.relevance_metrics import RELEVANCE_METRICS
from ml.evaluation.model_names import ModelName
from ml.evaluation.report_rows import TWO_SIDED, Protocol, ReportRow, rows_of_frame
from pipelines.cli.last_run import seconds_of_last_run
from warehouse.home import Home
from warehouse.tables import Tables

PROTOCOLS: Mapping[str, Protocol] = {
    "recall": Protocol.item,
    "diversity": Protocol.item,
    "context": Protocol.context,
    "marketplace": Protocol.market,
    "advertiser_recall": Protocol.advertiser,
}
"""The protocol of each report in the table ``model_metrics``."""

SHORT: Mapping[str, str] = {ModelName.contextual_without_context.value: "withheld"}
"""Names of models that are shorter here: the contextual model with the context withheld."""


def summary_figures(home: Home) -> dict[str, float]:
    """Return every figure by name; a figure that has not been computed is left out."""
    found: dict[str, float] = {}
    for name, value in _figures(home):
        if math.isfinite(value):
            found.setdefault(name, value)  # the recall report has the diversity report's figures, too
    return dict(sorted(found.items()))


def report_rows(tables: Tables, report: str) -> list[ReportRow]:
    """Return the rows of a report; none where the report has not run."""
    if not tables.exists("model_metrics"):
        return []
    return rows_of_frame(tables.read("model_metrics", {"report": report}))


def relevance_rows(tables: Tables) -> list[ReportRow]:
    """Return the rows of each report of relevance, of the newest day that has them; none before the first."""
    if not tables.exists(RELEVANCE_METRICS):
        return []
    rows = tables.scan(RELEVANCE_METRICS).filter(pl.col("day") == pl.col("day").max().over("report"))
    return rows_of_frame(rows.sort("report").collect())


def _figures(home: Home) -> Iterator[tuple[str, float]]:
    tables = Tables(home.tables)
    for report, protocol in PROTOCOLS.items():
        for row in report_rows(tables, report):
            yield from _of_row(row, protocol)
    if tables.exists("daily_recall"):
        served = pl.col("model") == ModelName.contextual.value
        days = tables.scan("daily_recall").filter(served).select("day", "metric", "value").drop_nulls("value").collect()
        for day, metric, value in days.iter_rows():
            yield f"{Protocol.daily}.{day}.{metric}", value
    for row in relevance_rows(tables):
        yield from _of_row(row, Protocol.relevance)
    seconds = seconds_of_last_run(home)
    if seconds is not None:
        yield "run.seconds", seconds


def _of_row(row: ReportRow, protocol: Protocol) -> Iterator[tuple[str, float]]:
    if row.value is None:
        return
    parts = row.name_beside_models(protocol).split(".")
    name = ".".join(SHORT.get(part, part) for part in parts)
    if row.metric.startswith("lift@") or row.metric in TWO_SIDED or protocol is Protocol.relevance:
        name = row.name(protocol)  # a figure with two sides has no model, and relevance has a single model
    yield name, row.value
    for end, value in row.bounds.items():
        yield f"{name}{end}", value

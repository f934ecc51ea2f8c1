"""The figures of relevance: report rows in the table ``relevance_metrics``, a partition a day and report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from warehouse.tables import Tables

if TYPE_CHECKING:
    from ml.evaluation.report_rows import ReportRow

RELEVANCE_METRICS = "relevance_metrics"


class RelevanceReport(StrEnum):
    """What measures relevance."""

    agreement = "agreement"
    scrape = "scrape"
    monitoring = "monitoring"
    model = "model"
    funnel = "funnel"


def write_metrics(workspace: Workspace, day: date, report: RelevanceReport, rows: Sequence[ReportRow]) -> pl.DataFrame:
    """Write the rows of a day's report in the place of earlier ones; return them as a table."""
    from ml.evaluation.report_rows import rows_frame

    table = rows_frame(rows)
    workspace.tables.write(RELEVANCE_METRICS, table, {"day": day, "report": report.value})
    return table


def metrics_of_day(tables: Tables, day: date) -> list[ReportRow]:
    """Return the rows of all reports of a day."""
    from ml.evaluation.report_rows import rows_of_frame

    if not tables.exists(RELEVANCE_METRICS):
        return []
    return rows_of_frame(tables.scan(RELEVANCE_METRICS).filter(pl.col("day") == day).collect())


def metrics_by_day(tables: Tables, report: RelevanceReport, until: date) -> pl.DataFrame:
    """Return the rows of a report of every day up to ``until``, with the day; empty before the first."""
    from ml.evaluation.report_rows import SCHEMA

    if not tables.exists(RELEVANCE_METRICS):
        return pl.DataFrame(schema={**SCHEMA, "day": pl.Date()})
    rows = tables.scan(RELEVANCE_METRICS).filter(pl.col("report") == report.value, pl.col("day") <= until)
    return rows.drop("report").sort("day").collect()

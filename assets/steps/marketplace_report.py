"""The marketplace report's work: the fate of the candidates of each generator, counted from the impression log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import newest_comparison
from assets.steps.store_report import Report, StoredReport, clear_report, store_report
from warehouse.contracts import STAGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("request_id", "user_id", "surface", "source", "stage")


@dataclass(frozen=True)
class MarketplaceReport:
    """The figures, and the content of the asset's page."""

    kept: StoredReport
    shares: Mapping[str, Figure]  # by surface: the share of impressions of each generator
    requests: int


def report_marketplace(workspace: Workspace, tags: Mapping[str, str]) -> MarketplaceReport | None:
    """Store survival, delivery and share of impressions by surface and generator; None without logged requests."""
    from ml.evaluation.funnel_outcomes import Stages, funnel_rows
    from ml.evaluation.recall_rows import intervals_of
    from ml.evaluation.report_rows import Protocol
    from ml.figures.charts import interval_bars

    compared, settings = newest_comparison(workspace), workspace.settings
    if not workspace.tables.exists("impressions"):
        clear_report(workspace, "marketplace")
        return None
    since = datetime.fromtimestamp(compared.comparison.cutoff, UTC)
    impressions = (
        workspace.tables.scan("impressions")
        .filter(pl.col("arrival_date") <= compared.version.trained_day, pl.col("request_time") >= since)
        .select(COLUMNS)
        .collect()
    )
    if not len(impressions):
        clear_report(workspace, "marketplace")
        return None
    rows = funnel_rows(
        impressions, Stages(STAGES), samples=settings.evaluation.bootstrap_samples, seed=settings.training.seed
    )
    shares = {
        surface: interval_bars(
            intervals_of([row for row in rows if row.group == surface], "share_of_impressions"),
            "Share of impressions by generator",
            "Share of impressions",
            subtitle=surface,
        )
        for surface in dict.fromkeys(row.group for row in rows)
    }
    requests = impressions["request_id"].n_unique()
    report = Report(
        "marketplace",
        Protocol.market,
        rows,
        {f"share_of_impressions_on_{surface}": figure for surface, figure in shares.items()},
        parameters={"source": "logged impressions", "requests": requests},
    )
    kept = store_report(workspace, compared.version, compared.period, report=report, tags=tags)
    return MarketplaceReport(kept, shares, requests)

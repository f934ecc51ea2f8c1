"""The marketplace report's work: the fate of the candidates of each generator, on the log and in an experiment.

The log of any system is counted by generator. On the synthetic world the market can be run again: each model's
candidates beside those of the legacy generators, an arm each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import newest_comparison
from assets.steps.estimated_outcomes import estimated_outcomes
from assets.steps.market_arms import arm_outcomes
from assets.steps.store_report import Report, StoredReport, clear_report, store_report
from warehouse.as_of import arrived_by
from warehouse.contracts import STAGES, LandingTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    "request_id",
    "user_id",
    "surface",
    "item_id",
    "source",
    "stage",
    "propensity",
    "inclusion_probability",
    "value",
)


@dataclass(frozen=True)
class MarketplaceReport:
    """The figures, and the content of the asset's page."""

    kept: StoredReport
    figures: Mapping[str, Figure]  # by name
    requests: int


def report_marketplace(workspace: Workspace, tags: Mapping[str, str]) -> MarketplaceReport | None:
    """Store survival, delivery and share of impressions by surface and generator; None without logged requests."""
    from ml.evaluation.funnel_outcomes import Stages, funnel_rows
    from ml.evaluation.market_outcomes import market_rows
    from ml.evaluation.recall_rows import intervals_of
    from ml.evaluation.report_rows import Protocol, Segment
    from ml.figures.charts import interval_bars

    compared, settings = newest_comparison(workspace), workspace.settings
    if not workspace.tables.exists("impressions"):
        clear_report(workspace, "marketplace")
        return None
    since = datetime.fromtimestamp(compared.comparison.cutoff, UTC)
    impressions = (
        arrived_by(workspace.tables, LandingTable.impressions, compared.version.trained_day)
        .filter(pl.col("request_time") >= since)
        .select(COLUMNS)
        .collect()
    )
    if not len(impressions):
        clear_report(workspace, "marketplace")
        return None
    samples, seed = settings.evaluation.bootstrap_samples, settings.training.seed
    rows = funnel_rows(impressions, Stages(STAGES), samples=samples, seed=seed)
    types = impressions.join(compared.period.items.select("item_id", "content_type"), on="item_id", how="left")
    by_type = funnel_rows(
        types.drop_nulls("content_type"), Stages(STAGES), samples=samples, seed=seed, segment=Segment.content_type
    )
    outcomes = arm_outcomes(workspace, compared)
    arms = [] if outcomes is None else market_rows(outcomes, samples=samples, seed=seed)
    shares = {
        surface: interval_bars(
            intervals_of([row for row in rows if row.group == surface], "share_of_impressions"),
            "Share of impressions by generator",
            "Share of impressions",
            subtitle=surface,
        )
        for surface in dict.fromkeys(row.group for row in rows)
    }
    survival = {
        surface: interval_bars(
            intervals_of([row for row in arms if row.group == surface], "survival_rate"),
            "Survival of candidates to an impression, by arm",
            "Delivered over retrieved",
            subtitle=f"{surface}, the world's market run again",
        )
        for surface in dict.fromkeys(row.group for row in arms if row.segment is Segment.surface)
    }
    requests = impressions["request_id"].n_unique()
    report = Report(
        "marketplace",
        Protocol.market,
        [*rows, *by_type, *arms, *estimated_outcomes(workspace, compared, impressions)],
        {
            **{f"share_of_impressions_on_{surface}": figure for surface, figure in shares.items()},
            **{f"survival_on_{surface}": figure for surface, figure in survival.items()},
        },
        parameters={"source": "logged impressions", "requests": requests},
    )
    kept = store_report(workspace, compared.version, compared.period, report=report, tags=tags)
    return MarketplaceReport(kept, report.figures, requests)

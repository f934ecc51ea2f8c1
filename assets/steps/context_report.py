"""The context report's work: what the live context adds, on requests with a subject item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import newest_comparison
from assets.steps.history_page import page
from assets.steps.store_report import Report, StoredReport, store_report
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.surfaces import Carries, Surface
from warehouse.tables import Tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ContextReport:
    """The figures, and what the asset's page says."""

    kept: StoredReport
    bars: Figure
    requests: int
    source: str
    k: int  # of the lift
    lift: float  # recall at k with the context over that without it


def report_context(workspace: Workspace, tags: Mapping[str, str]) -> ContextReport | None:
    """Store recall and relevance with and without the live context; None without contextual requests."""
    from ml.evaluation.item_report import context_evaluation, context_results
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.report_rows import rows_of
    from ml.figures.charts import ContextLift, context_bars

    compared, settings = newest_comparison(workspace), workspace.settings
    impressions = read_impressions(workspace.tables, compared.version.trained_day)
    evaluation = context_evaluation(
        compared.comparison,
        compared.period,
        impressions,
        maximum=settings.evaluation.maximum_users,
        seed=settings.training.seed,
    )
    if evaluation is None:
        return None
    results = context_results(compared.comparison, evaluation, compared.period.items)
    rows = [
        row
        for result in results
        for row in rows_of(result.model, {**result.metrics.figures(), "relevance@10": result.relevance})
    ]
    by_model = {result.model: result for result in results}
    shown, withheld = by_model[ModelName.contextual], by_model[ModelName.contextual_without_context]
    k = min(shown.metrics.recall)
    lift = shown.metrics.recall[k] / max(withheld.metrics.recall[k], 1e-9)
    pair = ContextLift(withheld.metrics.recall[k], shown.metrics.recall[k], withheld.relevance, shown.relevance)
    requests = len(evaluation.requests)
    bars = context_bars({ModelName.contextual: pair}, k, f"{requests} requests, {evaluation.source}")
    report = Report(
        "context",
        rows,
        {"context": bars},
        headline={f"lift@{k}": lift, "relevance_lift": _ratio(shown.relevance, withheld.relevance)},
        parameters={"source": evaluation.source, "requests": requests},
        texts={"qualitative.html": page(compared.comparison, evaluation, by_model, compared.period.items)},
    )
    kept = store_report(workspace, compared.version, compared.period, report=report, tags=tags)
    return ContextReport(kept, bars, requests, evaluation.source, k, lift)


def read_impressions(tables: Tables, day: date) -> pl.DataFrame:
    """Return the impressions that had arrived by ``day`` on surfaces whose requests carry a subject item."""
    if not tables.exists("impressions"):
        return pl.DataFrame(schema=pl.Schema(SCHEMAS[LandingTable.impressions]))
    with_subject = pl.col("surface").is_in(Surface.carrying(Carries.subject))
    return tables.scan("impressions").filter(pl.col("arrival_date") <= day, with_subject).collect()


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")

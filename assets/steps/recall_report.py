"""The recall report's work: every model's recall by K and segment, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison, measured, newest_comparison, stored_lists
from assets.steps.store_report import Report, StoredReport, store_report
from warehouse.as_of import users_as_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.model_names import ModelName
    from ml.retrieval.lists import RankedLists


@dataclass(frozen=True)
class RecallReport:
    """The figures, and the plots of the asset's page."""

    kept: StoredReport
    k: int  # of the intervals
    curve: Figure
    intervals: Figure


def report_recall(workspace: Workspace, tags: Mapping[str, str]) -> RecallReport:
    """Store Recall@K of every model: one MLflow run a model, below one run of the report."""
    from ml.evaluation.metrics import confidence_interval, says_something
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.report_rows import rows_of
    from ml.figures.charts import recall_curve, recall_interval_bars

    compared, settings = newest_comparison(workspace), workspace.settings
    positives, k = compared.comparison.asked.queries.positives, compared.headline_k
    found, lists = measured(workspace, compared), stored_lists(workspace, compared)
    intervals = {
        model: confidence_interval(
            ranked, positives, k, samples=settings.evaluation.bootstrap_samples, seed=settings.training.seed
        )
        for model, ranked in lists.items()
    }
    size = len(compared.comparison.item_ids)
    figures = {
        model: {name: value for name, value in metrics.figures().items() if says_something(name, size)}
        for model, metrics in found.items()
    }
    rows = [row for model, of_model in figures.items() for row in rows_of(model, of_model)]
    for model, each in intervals.items():
        rows += rows_of(model, {f"recall@{k} low": each.low, f"recall@{k} high": each.high})
    curve = recall_curve({model: metrics.recall for model, metrics in found.items()}, compared.window)
    bars = recall_interval_bars({model.value: each for model, each in intervals.items()}, k)
    report = Report(
        "recall",
        rows,
        {"recall_by_k": curve, "recall_with_intervals": bars, **_segment_figures(workspace, compared, lists)},
        headline=figures[ModelName.contextual],
    )
    return RecallReport(
        store_report(workspace, compared.version, compared.period, report=report, tags=tags), k, curve, bars
    )


def _segment_figures(
    workspace: Workspace, compared: VersionComparison, lists: Mapping[ModelName, RankedLists]
) -> dict[str, Figure]:
    from ml.evaluation.item_report import country_segments, history_segments, positive_name_segments
    from ml.evaluation.metrics import recall_by_positive_segment, recall_by_segment
    from ml.figures.charts import segment_bars

    comparison, k = compared.comparison, compared.headline_k
    positives = comparison.asked.queries.positives
    countries = country_segments(comparison, users_as_of(workspace.tables, compared.version.trained_day))
    types = positive_name_segments(comparison, compared.period.event_names)

    def by_query(segment: pl.Series, title: str) -> Figure:
        frames = {model.value: recall_by_segment(ranked, positives, segment, k) for model, ranked in lists.items()}
        return segment_bars(frames, title, k)

    by_type = {model.value: recall_by_positive_segment(ranked, positives, types, k) for model, ranked in lists.items()}
    figures = {
        "recall_by_history_length": by_query(history_segments(comparison), "History length (events)"),
        "recall_by_conversion_type": segment_bars(by_type, "Conversion type", k),
    }
    if countries.is_not_null().any():
        figures["recall_by_country"] = by_query(countries, "Country")
    return figures

"""The recall report's work: every model's recall by K and segment, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison, measured, newest_comparison, stored_lists
from assets.steps.store_report import Report, StoredReport, store_report
from warehouse.as_of import users_as_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from ml.evaluation.model_names import ModelName
    from ml.evaluation.report_rows import ReportRow, Segment
    from ml.retrieval.lists import RankedLists

BOUNDED_KS = (10, 100)  # list lengths with intervals


@dataclass(frozen=True)
class RecallReport:
    """The figures, and the plots of the asset's page."""

    kept: StoredReport
    k: int  # of the intervals in the plot
    curve: Figure
    intervals: Figure


def report_recall(workspace: Workspace, tags: Mapping[str, str]) -> RecallReport:
    """Store Recall@K of every model: one MLflow run a model, below one run of the report."""
    from ml.evaluation.metrics import says_something, usable_ks
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.recall_rows import bounded_recalls, differences, intervals_of
    from ml.evaluation.report_rows import Protocol, rows_of, with_bounds
    from ml.figures.charts import recall_curve, recall_interval_bars

    compared = newest_comparison(workspace)
    k = compared.headline_k
    found, lists = measured(workspace, compared), stored_lists(workspace, compared)
    size = len(compared.comparison.item_ids)
    figures = {
        model: {name: value for name, value in metrics.figures().items() if says_something(name, size)}
        for model, metrics in found.items()
    }
    positives, settings = compared.comparison.asked.queries.positives, workspace.settings
    samples, seed, ks = settings.evaluation.bootstrap_samples, settings.training.seed, usable_ks(BOUNDED_KS, size)
    bounded = bounded_recalls(lists, positives, ks=sorted({*ks, k}), samples=samples, seed=seed)
    rows = with_bounds([row for model, of_model in figures.items() for row in rows_of(model, of_model)], bounded)
    rows += differences(ModelName.contextual, lists, positives, ks=ks, samples=samples, seed=seed)
    segments = _segments(workspace, compared, lists)
    rows += [row for segment in segments for row in segment.rows(k)]
    rows += _on_training(workspace, compared, lists)
    curve = recall_curve({model: metrics.recall for model, metrics in found.items()}, compared.window)
    bars = recall_interval_bars(intervals_of(bounded, f"recall@{k}"), k)
    drawn = {f"recall_by_{segment.kind.value}": segment.bars(k) for segment in segments}
    report = Report(
        "recall",
        Protocol.item,
        rows,
        {"recall_by_k": curve, "recall_with_intervals": bars, **drawn},
        headline=figures[ModelName.contextual],
    )
    return RecallReport(
        store_report(workspace, compared.version, compared.period, report=report, tags=tags), k, curve, bars
    )


def _on_training(
    workspace: Workspace, compared: VersionComparison, lists: Mapping[ModelName, RankedLists]
) -> list[ReportRow]:
    """Return what the closing table says of the training and of the oracle."""
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.report_rows import FUTURES, TRAINED_EXAMPLES, ReportRow

    training = compared.comparison.settings.training
    rows = [ReportRow(ModelName.contextual, TRAINED_EXAMPLES, training.epochs * training.epoch_examples)]
    if ModelName.oracle in lists:
        rows.append(ReportRow(ModelName.oracle, FUTURES, workspace.settings.evaluation.oracle_futures))
    return rows


@dataclass(frozen=True)
class _BySegment:
    """Recall by the groups of a segment, for each model."""

    kind: Segment
    title: str
    frames: Mapping[str, pl.DataFrame]  # segment, queries, positives, recall

    def rows(self, k: int) -> list[ReportRow]:
        from ml.evaluation.report_rows import segment_rows

        return [
            row for model, frame in self.frames.items() for row in segment_rows(model, f"recall@{k}", self.kind, frame)
        ]

    def bars(self, k: int) -> Figure:
        from ml.figures.charts import segment_bars

        return segment_bars(self.frames, self.title, k)


def _segments(
    workspace: Workspace, compared: VersionComparison, lists: Mapping[ModelName, RankedLists]
) -> list[_BySegment]:
    """Return recall by history length, country, conversion type and content type, where the log has them."""
    from ml.evaluation.item_report import (
        content_type_segments,
        country_segments,
        history_segments,
        positive_name_segments,
    )
    from ml.evaluation.metrics import recall_by_positive_segment, recall_by_segment
    from ml.evaluation.report_rows import Segment

    comparison, k = compared.comparison, compared.headline_k
    positives = comparison.asked.queries.positives
    by_query = {
        (Segment.history_length, "History length (events)"): history_segments(comparison),
        (Segment.country, "Country"): country_segments(
            comparison, users_as_of(workspace.tables, compared.version.trained_day)
        ),
    }
    by_positive = {
        (Segment.conversion, "Conversion type"): positive_name_segments(comparison, compared.period.event_names),
        (Segment.content_type, "Content type"): content_type_segments(comparison, compared.period.items),
    }
    return [
        _BySegment(kind, title, {model.value: measure(each, positives, labels, k) for model, each in lists.items()})
        for measure, segments in ((recall_by_segment, by_query), (recall_by_positive_segment, by_positive))
        for (kind, title), labels in segments.items()
        if labels.is_not_null().any()
    ]

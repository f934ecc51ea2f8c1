"""The diversity report's work: diversity, coverage and novelty of every model, beside recall, and their front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison, measured, newest_comparison
from assets.steps.store_report import Report, StoredReport, store_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.metrics import Metrics
    from ml.evaluation.report_rows import ReportRow

FIGURES = ("diversity90", "advertiser_diversity90", "coverage@10", "novelty", "never_engaged@100")


@dataclass(frozen=True)
class DiversityReport:
    """The figures, and the plots of the asset's page."""

    kept: StoredReport
    scatter: Figure
    front: Figure | None  # None: the model was trained before there was a popularity weight


def report_diversity(workspace: Workspace, tags: Mapping[str, str]) -> DiversityReport:
    """Store diversity against recall in one MLflow run, and what other popularity weights would make of both."""
    from ml.evaluation.report_rows import Protocol, ReportRow
    from ml.figures.charts import diversity_scatter

    compared = newest_comparison(workspace)
    found, k = measured(workspace, compared), compared.headline_k
    figures = {model: metrics.figures() for model, metrics in found.items()}
    rows = [
        ReportRow(model.value, name, figures[model].get(name)) for model in found for name in (*FIGURES, f"recall@{k}")
    ]
    scatter = diversity_scatter({model: (each.diversity90, each.recall[k]) for model, each in found.items()}, k)
    by_weight = _by_popularity_weight(compared)
    front = None
    if by_weight:
        rows += _front_rows(by_weight, k)
        front = _front(by_weight, k)
    drawn = {"diversity_against_recall": scatter} | ({"popularity_weights": front} if front is not None else {})
    report = Report("diversity", Protocol.item, rows, drawn)
    stored = store_report(workspace, compared.version, compared.period, report=report, tags=tags)
    return DiversityReport(stored, scatter, front)


def _by_popularity_weight(compared: VersionComparison) -> Mapping[float, Metrics]:
    """Return the figures of the contextual model under each popularity weight."""
    from ml.evaluation.item_report import measure
    from ml.evaluation.metrics import DIVERSITY_DEPTH
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.popularity_front import POPULARITY_WEIGHTS, lists_by_weight

    comparison = compared.comparison
    artifact = comparison.artifacts[ModelName.contextual]
    if not artifact.network.shape.popularity:
        return {}
    lists = lists_by_weight(
        artifact.network, comparison.asked, artifact.settings, weights=POPULARITY_WEIGHTS, depth=DIVERSITY_DEPTH
    )
    return {weight: measure(comparison, each, [compared.headline_k]) for weight, each in lists.items()}


def _front_rows(by_weight: Mapping[float, Metrics], k: int) -> list[ReportRow]:
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.report_rows import ReportRow, Segment

    return [
        ReportRow(
            ModelName.contextual,
            name,
            metrics.figures().get(name),
            segment=Segment.popularity_weight,
            group=f"{weight:g}",
        )
        for weight, metrics in by_weight.items()
        for name in ("diversity90", f"recall@{k}")
    ]


def _front(by_weight: Mapping[float, Metrics], k: int) -> Figure:
    from ml.figures.charts import pareto_scatter

    points = {f"{weight:g}": (metrics.diversity90, metrics.recall[k]) for weight, metrics in by_weight.items()}
    return pareto_scatter(points, [*points], k, "Contextual model; labels: index.popularity_weight")

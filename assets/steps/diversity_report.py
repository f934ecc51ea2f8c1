"""The diversity report's work: diversity, coverage and novelty of every model, beside recall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.comparison import measured, newest_comparison
from assets.steps.store_report import Report, StoredReport, store_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("diversity90", "advertiser_diversity90", "coverage@10", "novelty", "never_engaged@100")


@dataclass(frozen=True)
class DiversityReport:
    """The figures, and the plot of the asset's page."""

    kept: StoredReport
    scatter: Figure


def report_diversity(workspace: Workspace, tags: Mapping[str, str]) -> DiversityReport:
    """Store diversity against recall in one MLflow run."""
    from ml.evaluation.report_rows import Protocol, ReportRow
    from ml.figures.charts import diversity_scatter

    compared = newest_comparison(workspace)
    found, k = measured(workspace, compared), compared.headline_k
    figures = {model: metrics.figures() for model, metrics in found.items()}
    rows = [
        ReportRow(model.value, name, figures[model].get(name)) for model in found for name in (*FIGURES, f"recall@{k}")
    ]
    scatter = diversity_scatter({model: (each.diversity90, each.recall[k]) for model, each in found.items()}, k)
    report = Report("diversity", Protocol.item, rows, {"diversity_against_recall": scatter})
    stored = store_report(workspace, compared.version, compared.period, report=report, tags=tags)
    return DiversityReport(stored, scatter)

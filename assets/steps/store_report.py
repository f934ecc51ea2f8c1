"""The place of every report's figures: a table of rows in ``model_metrics``, and the same rows in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.versions import ModelKind, ModelVersion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.report_rows import Protocol, ReportRow
    from ml.examples.period import TrainingPeriod

MODEL_METRICS = "model_metrics"


@dataclass(frozen=True)
class Report:
    """The result of a report on a version.

    Attributes:
        name: name of the report and of its partition of ``model_metrics``; the run is ``<name>_report <day>``.
        protocol: begins the name of every figure in MLflow, and says the experiment. Each model has a nested run.
        rows: every figure of every model.
        figures: plots by the name of their file.
        headline: figures of the report's own run, by name.
        parameters: of its runs, beside the settings.
        texts: files of its run by name.
    """

    name: str
    protocol: Protocol
    rows: Sequence[ReportRow]
    figures: Mapping[str, Figure]
    headline: Mapping[str, float | None] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredReport:
    """A report's figures, and where its run is."""

    table: pl.DataFrame  # model, metric, value, low, high, segment, group
    url: str

    def at(self, k: int) -> dict[str, float]:
        """Return recall@k of all queries by model."""
        return dict(self.table.filter(metric=f"recall@{k}", segment="all").select("model", "value").rows())

    def wide(self, *kinds: str, segment: str = "all") -> pl.DataFrame:
        """Return one row a model and group of the segment, with all figures or with figures of ``kinds``.

        ``recall`` is recall at every K.
        """
        kind = pl.col("metric").str.extract(r"^(\w+)(?:@\d+)?$")
        kept = self.table.filter(segment=segment)
        kept = kept.filter(kind.is_in(kinds)) if kinds else kept
        index = ["model"] if segment == "all" else ["model", "group"]
        return kept.pivot("metric", index=index, values="value", maintain_order=True)


def store_report(
    workspace: Workspace, version: ModelVersion, period: TrainingPeriod, *, report: Report, tags: Mapping[str, str]
) -> StoredReport:
    """Log a report to MLflow, and write its rows unless the gate has refused the version.

    Args:
        version: the measured version, of either kind of model.
        period: the period that the version was trained on.
        tags: tags of the run, such as the place where the run was started.
    """
    import mlflow

    from ml.evaluation.metrics import mlflow_metrics
    from ml.evaluation.report_rows import rows_frame
    from ml.versions.fingerprint import dataset_hash
    from ml.versions.report_runs import experiment_of, log_runs_by_model
    from ml.versions.tracking import log_figures

    tracking = workspace.tracking
    tags = {**tags, "model_version": version.name, "training_run_id": version.run_id}
    with tracking.run(experiment_of(report.protocol), f"{report.name}_report {version.trained_day}", tags) as run:
        mlflow.log_params({**workspace.settings.flat(), **report.parameters})
        mlflow.set_tag("dataset_hash", dataset_hash(period))
        headline = {f"{report.protocol}.{name}": value for name, value in report.headline.items()}
        mlflow.log_metrics(mlflow_metrics(headline))
        log_figures(dict(report.figures))
        for name, text in report.texts.items():
            mlflow.log_text(text, name)
        parameters = dict(report.parameters)
        log_runs_by_model(tracking, report.rows, protocol=report.protocol, parameters=parameters)
    table = rows_frame(report.rows)
    if not is_refused(workspace, version):
        workspace.tables.write(MODEL_METRICS, table, {"report": report.name})
    return StoredReport(table, tracking.url(run))


def clear_report(workspace: Workspace, name: str) -> None:
    """Remove the rows of a report that found nothing to measure, so that no earlier version's rows stand for it."""
    from ml.evaluation.report_rows import rows_frame

    workspace.tables.write(MODEL_METRICS, rows_frame([]), {"report": name})


def is_refused(workspace: Workspace, version: ModelVersion) -> bool:
    """Whether the gate has refused an item model: the closing table then still shows the champion.

    There is no gate between advertiser models.
    """
    return version.kind is ModelKind.item and version.name != workspace.tracking.champion()

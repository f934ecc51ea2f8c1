"""The rows of reports in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlflow

from ml.evaluation.metrics import mlflow_metrics
from ml.evaluation.report_rows import Protocol, ReportRow, figures_by_model
from ml.versions.tracking import Tracking


def log_runs_by_model(
    tracking: Tracking,
    experiment: str,
    rows: Sequence[ReportRow],
    *,
    protocol: Protocol,
    parameters: Mapping[str, object] | None = None,
) -> None:
    """Log the rows as one nested run a model under the active run: ``<protocol> <model>``.

    Args:
        protocol: begins the name of every figure.
        parameters: of every run.
    """
    for model, figures in figures_by_model(rows, protocol).items():
        with tracking.run(experiment, f"{protocol} {model}", {"model": model, "protocol": protocol}, nested=True):
            mlflow.log_params({"model": model, **(parameters or {})})
            mlflow.log_metrics(mlflow_metrics(figures))


def log_rows(rows: Sequence[ReportRow], protocol: Protocol, step: int | None = None) -> None:
    """Log the rows to the active run itself, as ``<protocol>.<model>.<metric>``."""
    figures = {f"{protocol}.{row.model}.{row.metric}": row.value for row in rows}
    mlflow.log_metrics(mlflow_metrics(figures), step=step)

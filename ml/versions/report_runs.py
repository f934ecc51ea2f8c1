"""The rows of reports in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlflow

from ml.evaluation.metrics import mlflow_metrics
from ml.evaluation.report_rows import ReportRow, figures_by_model
from ml.versions.tracking import Tracking


def log_runs_by_model(
    tracking: Tracking,
    experiment: str,
    rows: Sequence[ReportRow],
    *,
    prefix: str = "",
    parameters: Mapping[str, object] | None = None,
) -> None:
    """Log the rows as one nested run a model under the active run.

    Args:
        prefix: of the runs' names; the model's name follows.
        parameters: of every run.
    """
    for model, figures in figures_by_model(rows).items():
        with tracking.run(experiment, f"{prefix}{model}", {"model": model}, nested=True):
            mlflow.log_params({"model": model, **(parameters or {})})
            mlflow.log_metrics(mlflow_metrics(figures))


def log_rows(rows: Sequence[ReportRow], step: int | None = None) -> None:
    """Log the rows to the active run itself, as ``<model>_<metric>``."""
    figures = {f"{row.model}_{row.metric}": row.value for row in rows}
    mlflow.log_metrics(mlflow_metrics(figures), step=step)

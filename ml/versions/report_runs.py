"""The rows of reports in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlflow

from ml.evaluation.metrics import mlflow_metrics
from ml.evaluation.report_rows import Protocol, ReportRow, figures_by_model
from ml.versions.tracking import MARKET, REPORTS, Tracking


def experiment_of(protocol: Protocol) -> str:
    """Return the experiment of a protocol's reports: the market has one of its own, in which its arms are compared."""
    return MARKET if protocol is Protocol.market else REPORTS


def log_runs_by_model(
    tracking: Tracking,
    rows: Sequence[ReportRow],
    *,
    protocol: Protocol,
    parameters: Mapping[str, object] | None = None,
) -> None:
    """Log the rows as one nested run a model under the active run, in the experiment of the protocol.

    A run is called ``<protocol> <model>``, and in the market's own experiment by the model or generator alone.

    Args:
        protocol: begins the name of every figure.
        parameters: of every run.
    """
    experiment = experiment_of(protocol)
    for model, figures in figures_by_model(rows, protocol).items():
        name = model if experiment == MARKET else f"{protocol} {model}"
        with tracking.run(experiment, name, {"model": model, "protocol": protocol}, nested=True):
            mlflow.log_params({"model": model, **(parameters or {})})
            mlflow.log_metrics(mlflow_metrics(figures))


def log_rows(rows: Sequence[ReportRow], protocol: Protocol, step: int | None = None) -> None:
    """Log the rows to the active run itself, as ``<protocol>.<model>.<metric>``."""
    figures = {f"{protocol}.{row.model}.{row.metric}": row.value for row in rows}
    mlflow.log_metrics(mlflow_metrics(figures), step=step)

"""The data of a training, as datasets of its MLflow run: source, digest and number of rows of each table."""

from __future__ import annotations

from datetime import UTC, datetime

import mlflow
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.polars_dataset import from_polars

from ml.examples.period import TrainingPeriod
from ml.versions.fingerprint import frame_hash


def log_datasets(period: TrainingPeriod) -> None:
    """Log the tables that a training learns from to the active run. A path begins at the home, which may move."""
    frames = {"events": period.events, "items": period.items, "users": period.users, "impressions": period.requests}
    tags = {"until": datetime.fromtimestamp(period.end, UTC).isoformat()}
    for table, rows in frames.items():
        if rows is not None:
            source = DeltaDatasetSource(path=f"tables/{table}")
            mlflow.log_input(from_polars(rows, source, name=table, digest=frame_hash(rows)), "training", tags)

"""The data of a training, as datasets of its MLflow run: source, digest and number of rows of each table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import mlflow
import polars as pl
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.polars_dataset import from_polars

from ml.examples.period import TrainingPeriod
from ml.versions.fingerprint import frame_hash


def log_datasets(period: TrainingPeriod) -> None:
    """Log the tables that a training learns from to the active run."""
    frames = {"events": period.events, "items": period.items, "users": period.users, "impressions": period.requests}
    tags = {"until": datetime.fromtimestamp(period.end, UTC).isoformat()}
    for table, rows in frames.items():
        if rows is not None:
            mlflow.log_input(from_polars(rows, HomeTable(table), name=table, digest=frame_hash(rows)), "training", tags)


class HomeTable(DatasetSource):
    """A table of the home, named from the home, which may move."""

    def __init__(self, table: str) -> None:
        self.table = table

    @staticmethod
    def _get_source_type() -> str:
        return "delta_table"

    def load(self, **_: Any) -> pl.DataFrame:
        raise NotImplementedError(f"Read the table under the home: warehouse.tables.Tables(...).scan({self.table!r})")

    @staticmethod
    def _can_resolve(_: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> HomeTable:
        raise NotImplementedError(raw_source)

    def to_dict(self) -> dict[Any, Any]:
        return {"path": f"tables/{self.table}"}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> HomeTable:
        return cls(source_dict["path"].removeprefix("tables/"))

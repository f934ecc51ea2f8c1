"""The values that an ingestion works with, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from engine.engine import Engine
from settings import DataSettings
from warehouse.ingest.validate_rows import Rules
from warehouse.spill import Staging
from warehouse.tables import Tables


@dataclass(frozen=True)
class Job:
    """The ingestion of one arrival of one table.

    Attributes:
        arrived_on: the arrival day.
        staged: holds the rows between two passes over them.
        rules: of the rows; with the table and the keys of users.
        tombstones: the keys of forgotten users.
        engine: runs the parts of an arrival that has several.
    """

    tables: Tables
    arrived_on: date
    staged: Staging
    rules: Rules
    tombstones: pl.Series
    settings: DataSettings
    engine: Engine

    @property
    def partition(self) -> dict[str, date]:
        return {"arrival_date": self.arrived_on}


@dataclass(frozen=True)
class Written:
    """Figures about the rows of an arrival.

    Attributes:
        rows: rows of the partition.
        late: events that happened on a day before they arrived.
        forgotten: accepted rows of forgotten users, which are in no table.
    """

    rows: int
    late: int
    forgotten: int

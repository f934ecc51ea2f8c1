"""Where Dagster keeps runs, events and logs if nobody set DAGSTER_HOME: in the home that ADSEQ_HOME names.

Without that, ``dg dev`` would show an empty instance beside the home.
"""

from __future__ import annotations

from typing import Any

from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from settings import Settings
from warehouse.home import Home


class HomeStorage(DagsterSqliteStorage):
    """SQLite under the home, at the places that Dagster itself takes where DAGSTER_HOME is the home's."""

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> HomeStorage:
        return cls(str(Home(Settings().home).dagster), inst_data)


class HomeLogs(LocalComputeLogManager):
    """Output of steps, under the home."""

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> HomeLogs:
        return cls(str(Home(Settings().home).dagster / "storage"), inst_data=inst_data)

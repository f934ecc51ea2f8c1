"""A stand-in for the real flow: the same asset and job names, no work. And a home whose landing zone has three days.

No ``from __future__ import annotations`` here: Dagster refuses an annotated ``context`` whose annotation is a string.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.common.partitions import daily_partitions
from pipelines import jobs
from settings import DataSettings
from tests.pipelines.evaluate.split_world import TINY, Made, make_splits
from warehouse.contracts import LandingTable
from warehouse.day_records import record_completed
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables


@pytest.fixture(autouse=True)
def _environment_of_before() -> Iterator[None]:
    """Put the environment back: a command that runs in the tests' own process chooses its home and settings there."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


LANDED = [date(2014, 7, 20), date(2014, 7, 21), date(2014, 7, 23)]


@dataclass
class Flow:
    """What has been materialized, in order, and what is to fail."""

    done: list[tuple[str, str | None]] = field(default_factory=list)
    broken: dict[str, Exception] = field(default_factory=dict)
    ingesting: Home | None = None  # a home whose events are really ingested, and whose days are recorded

    def names(self) -> list[str]:
        return [name for name, _ in self.done]

    def days(self) -> list[str]:
        """The days of the flow's last asset, in the order in which they ran."""
        return [day for name, day in self.done if name == jobs.DAILY[-1] and day]

    def definitions(self, *, retries: bool = False, days: dg.PartitionsDefinition | None = None) -> dg.Definitions:
        """Every asset of the jobs."""
        days = days or daily_partitions(LANDED, "UTC", date(2026, 5, 20))
        order = [jobs.HISTORY, *jobs.TRAINING]
        unpartitioned = [self._asset(name, _before(name, order), None) for name in order]
        partitioned = [self._asset(name, _before(name, jobs.DAILY) or "champion", days) for name in jobs.DAILY]
        policy = dg.RetryPolicy(max_retries=1, delay=0) if retries else None
        return dg.Definitions(
            assets=[*unpartitioned, *partitioned],
            jobs=[
                dg.define_asset_job(job.name, selection=job.selection, op_retry_policy=policy)
                for job in (jobs.bootstrap, jobs.retrain, jobs.daily)
            ],
            executor=dg.in_process_executor,
        )

    def _record(self, name: str, day: date | None) -> None:
        if self.ingesting is None:
            return
        tables, landing = Tables(self.ingesting.tables), Landing(self.ingesting.landing)
        if name in (jobs.HISTORY, "events"):
            ingest(landing, tables, LandingTable.events, day=day, settings=DataSettings())
        if name == jobs.DAILY[-1] and day is not None:
            record_completed(tables, day)

    def _asset(self, name: str, after: str | None, days: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=[after] if after else [], partitions_def=days)
        def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            if name in self.broken:
                raise self.broken[name]
            self.done.append((name, context.partition_key if days else None))
            self._record(name, date.fromisoformat(context.partition_key) if days else None)
            return dg.MaterializeResult(metadata={"rows": 12345, "share": 0.25, "note": "not a number"})

        return body


def _before(name: str, order: Sequence[str]) -> str | None:
    """The asset that one waits for: the one before it. Only a report waits for a report."""
    before = [each for each in order[: order.index(name)] if name in jobs.REPORTS or each not in jobs.REPORTS]
    return before[-1] if before else None


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with three landed days."""
    home = Home(tmp_path / "home").create()
    for day in LANDED:
        Landing(home.landing).write(LandingTable.events, day, pl.DataFrame({"event_id": ["a"]}))
    return home


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Fixed splits of a small log; tests put back what they change in the files."""
    return make_splits(tmp_path_factory.mktemp("splits"))


@pytest.fixture
def tiny_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny configuration; the command changes the environment, which is put back afterwards."""
    for name in ("ADSEQ_HOME", "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, "placeholder"))
    monkeypatch.delenv("ADSEQ_HOME")
    for name, value in TINY.items():
        monkeypatch.setenv(f"ADSEQ_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")

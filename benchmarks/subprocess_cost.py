"""One piece of work on a log of ``benchmarks.events``, in a process of its own, for its time and its memory:
``python -m benchmarks.subprocess_cost WORK ROOT`` prints both as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from assets.common.workspace import Workspace
    from assets.steps.versions import ModelVersion

MEBIBYTE = 2**20
COLUMNS = ("user_id", "event_id", "event_time", "event_name", "item_id", "advertiser_id", "value")


@dataclass(frozen=True)
class Cost:
    """The cost of a piece of work.

    Attributes:
        seconds: without the imports.
        memory: MiB at the highest, of the process' own; pages of files that it maps are the disk's.
    """

    seconds: float
    memory: float


def measured(work: str, root: Path) -> Cost:
    """Do ``work`` in a fresh process, and return its cost.

    Raises: subprocess.CalledProcessError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.subprocess_cost", work, str(root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def ingest_history(root: Path) -> Callable[[], object]:
    """Return work that ingests the landing zone's history into ``root``/tables."""
    from settings import Settings
    from warehouse.contracts import LandingTable
    from warehouse.ingest.arrival import ingest
    from warehouse.landing import Landing
    from warehouse.tables import Tables

    settings = Settings().data
    return lambda: ingest(
        Landing(root / "landing"), Tables(root / "tables"), LandingTable.events, day=None, settings=settings
    )


def validate_all(root: Path) -> Callable[[], object]:
    """Return the work of ``adseq validate``, without printing."""
    from settings import Settings
    from warehouse.landing import Landing
    from warehouse.validate_landing import validate

    return lambda: validate(Landing(root / "landing"), Settings().data)


def all_sequences(root: Path) -> Callable[[], object]:
    """Return work that turns the event table into a table of everybody's sequence."""
    import polars as pl

    from settings import Settings
    from warehouse.landing import Landing
    from warehouse.sequences import SEQUENCE_SCHEMA, active_sequences, of_all_buckets
    from warehouse.tables import Tables

    tables, landing, settings = Tables(root / "tables"), Landing(root / "landing"), Settings()

    def work() -> None:
        days = tables.days("events", "arrival_date")
        source = active_sequences(tables, landing, days, settings=settings.sequences, data=settings.data)
        schema = pl.Schema(SEQUENCE_SCHEMA)
        Tables(root / "sequences").write_batches("user_sequences", schema, of_all_buckets(source), {"day": days[-1]})

    return work


def pandas_sequences(root: Path) -> Callable[[], object]:
    """Return work that makes the same sequences in pandas, in the way of a pandas user."""
    import pandas as pd  # type: ignore[import-untyped]

    from settings import Settings
    from warehouse.tables import Tables

    length = Settings().sequences.length

    def work() -> None:
        files = Tables(root / "tables").files("events")
        events = pd.concat([pd.read_parquet(file, columns=list(COLUMNS)) for file in files])
        events = events.sort_values(["user_id", "event_time", "event_id"])
        newest = events.groupby("user_id", sort=False).tail(length)
        newest.groupby("user_id", sort=True).agg(list).to_parquet(root / "pandas.parquet")

    return work


def sorted_copy(root: Path) -> Callable[[], object]:
    """Return the floor of sequences: work in which DuckDB reads the same columns, sorts and writes."""
    import duckdb

    from warehouse.tables import Tables

    def work() -> None:
        files = Tables(root / "tables").files("events")
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT {', '.join(COLUMNS)} FROM read_parquet($files) ORDER BY user_id, event_time, event_id) "
                f"TO '{root / 'sorted.parquet'}'",
                {"files": files},
            )

    return work


def full_inference(root: Path) -> Callable[[], object]:
    """Return work that encodes every user of the home ``root``."""
    from assets.steps.encode import encode_everyone

    workspace, version = _item_version(root)
    return lambda: encode_everyone(workspace, version)


def index_check(root: Path) -> Callable[[], object]:
    """Return work that builds the index of the version's training day and checks it with a sample of users."""
    from assets.steps.encode import index_day

    workspace, version = _item_version(root)
    return lambda: index_day(workspace, version, version.trained_day)


def item_statistics(root: Path) -> Callable[[], object]:
    """Return work that computes the item features and their statistics of a day."""
    from assets.steps.item_features import features_of_day

    workspace, version = _item_version(root)
    return lambda: features_of_day(workspace, version, version.trained_day)


def daily_recall(root: Path) -> Callable[[], object]:
    """Return work that measures the states of the training day on the next day's conversions."""
    from assets.steps.daily_recall import prequential

    workspace, version = _item_version(root)
    return lambda: prequential(workspace, version.trained_day + timedelta(days=1), {})


def advertiser_lists(root: Path) -> Callable[[], object]:
    """Return work that embeds the advertisers and predicts everybody's."""
    from assets.steps.predict_advertisers import predict_day, write_embeddings
    from assets.steps.versions import advertiser_versions

    workspace = _workspace(root)
    version = advertiser_versions(workspace.tables, workspace.home).all()[-1]

    def work() -> None:
        write_embeddings(workspace, version, version.trained_day)
        predict_day(workspace, version, version.trained_day)

    return work


def publication(root: Path) -> Callable[[], object]:
    """Return work that publishes everybody into a store that is empty."""
    from assets.steps.publish import publish_day

    workspace, version = _item_version(root)
    return lambda: publish_day(workspace, version, version.trained_day, version.name)


def export_lists(root: Path) -> Callable[[], object]:
    """Return the work of ``adseq export candidates``."""
    from rich.console import Console

    from pipelines.cli.export import export_candidates

    workspace = _workspace(root)
    return lambda: export_candidates(workspace, root / "lists.parquet", 100, Console(quiet=True))


def _workspace(root: Path) -> Workspace:
    from assets.common.workspace import Workspace
    from settings import Settings

    return Workspace(Settings(home=root))


def _item_version(root: Path) -> tuple[Workspace, ModelVersion]:
    from assets.steps.versions import item_versions

    workspace = _workspace(root)
    return workspace, item_versions(workspace.tables, workspace.home).all()[-1]


DATA = (ingest_history, validate_all, all_sequences, pandas_sequences, sorted_copy)
HOME = (full_inference, index_check, advertiser_lists, publication, item_statistics, daily_recall, export_lists)
WORKS = {work.__name__: work for work in (*DATA, *HOME)}


def main(name: str, root: Path) -> None:
    work = WORKS[name](root)
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        process = psutil.Process()
        while not ended.is_set():
            memory = process.memory_info()
            peak = max(peak, memory.rss - memory.shared)
            ended.wait(0.01)

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - started
        ended.set()
        watching.join()
    print(json.dumps({"seconds": seconds, "memory": peak / MEBIBYTE}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

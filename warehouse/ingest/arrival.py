"""Landing files -> validated Delta tables: one arrival day of one table at a time.

Rows that break a contract go to ``quarantine_<table>`` with the rule that they break; duplicates are dropped, the
earliest kept; the partition is written last, in one commit, so that whatever goes wrong leaves the previous one.

Files are read batch by batch into a staging directory, and combined from there: however large they are, memory stays
within ``data.memory_gib``. On a cluster, an arrival of more than ``data.part_mib`` is read in parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from time import perf_counter

import polars as pl

from engine.engine import Engine
from engine.local import LocalEngine
from settings import DataSettings
from warehouse.arrival_days import arrival_day, history_dated_by, record_history_day
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.day_records import record_arrival, recorded_files
from warehouse.days import day_end
from warehouse.forget import forgotten_users
from warehouse.identity import UserKeys
from warehouse.ingest.dealt_events import ArrivalInBuckets
from warehouse.ingest.job import Job
from warehouse.ingest.judge_files import Found, file_parts
from warehouse.ingest.read import read_arrival
from warehouse.ingest.validate_rows import NOT_AFTER_ARRIVAL, QUARANTINE_SCHEMA, USER, Rules, embedding_width
from warehouse.ingest.whole_arrival import WholeArrival
from warehouse.landed_files import files_of
from warehouse.landing import Landing
from warehouse.spill import read_piece, staging
from warehouse.tables import Tables

HERE = LocalEngine()
PERSONAL = {USER, "search_string", "query"}
_EXAMPLE_CHARACTERS = 600


class QuarantineExceeded(RuntimeError):
    """Too large a share of an arrival's rows breaks the contract; its partition was not written."""


@dataclass(frozen=True)
class IngestReport:
    """The results of the ingestion of one arrival day of one table.

    Attributes:
        rows_read: rows in all files.
        rows_written: rows in the partition.
        duplicates: rows whose key had been read already, in this arrival or (events) in an earlier one.
        quarantined: rows by the first rule that each breaks; the values add up to the rows quarantined.
        lost_numbers: accepted rows whose optional number cannot be read, so that they go without it, by column.
        late: events that happened on a day before they arrived.
        forgotten: rows of users who were forgotten; they are in no table.
        files: number of files.
        parts: number of parts that the files were read in; 1: this process read them.
        ignored_columns: columns that the contract does not know, sorted.
        seconds: wall-clock time.
    """

    rows_read: int
    rows_written: int
    duplicates: int
    quarantined: dict[str, int]
    lost_numbers: dict[str, int]
    late: int
    forgotten: int
    files: int
    parts: int
    ignored_columns: tuple[str, ...]
    seconds: float

    @property
    def rows_quarantined(self) -> int:
        return sum(self.quarantined.values())

    @property
    def quarantine_share(self) -> float:
        """Return quarantined over read rows; 0 where no row was read."""
        return self.rows_quarantined / self.rows_read if self.rows_read else 0.0


def ingest(
    landing: Landing,
    tables: Tables,
    table: LandingTable,
    *,
    day: date | None,
    settings: DataSettings,
    engine: Engine = HERE,
) -> IngestReport:
    """Replace one arrival day's partition of ``table`` by the rows of the day's landing folder.

    Args:
        landing: the landing zone; its manifest names the time zone of days.
        tables: where the data and ``quarantine_<table>`` partitions go.
        table: which landing table.
        day: the arrival day, or None for the history. The first ingestion of a history records in the home which day it
            counts as (``warehouse.arrival_days``).
        settings: quarantine share, tolerance for events after their arrival day, memory, size of a part.
        engine: runs the parts of an arrival that has several; default: this process.

    A folder that is missing or empty leaves an empty partition. Days may be ingested again, and in any order as long
    as the events that arrived before them are there. The files that the partition is made of are recorded last
    (``warehouse.day_records``): killed before that, the arrival counts as changed, and runs again.

    Raises:
        LandingError: a file cannot be read, the landing zone has a history but no daily folder, or ``day`` is on or
            before the day of the history.
        QuarantineExceeded: the quarantine table is written, the data partition is not.
        MemoryTooSmall: the rows to sort do not fit into ``settings.memory_gib``; the data partition stays.
    """
    started = perf_counter()
    arrived_on = arrival_day(tables, landing, day)
    partition = {"arrival_date": arrived_on}
    tables.make_readable(table.value, partition)  # what arrived earlier is read before the partition is written
    landed = files_of(landing, table, day, recorded_files(tables, table, arrived_on))
    # In one process, an arrival in parts would take more than half as long again.
    part_bytes = settings.part_bytes if engine.at_once() > 1 else sum(file.bytes for file in landed)
    parts = file_parts(landing.folder(table, day), landed, part_bytes)
    files = [landing.folder(table, day) / file.name for file in landed]
    keys, tombstones = UserKeys.of(tables, landing), forgotten_users(tables)
    rules = Rules(
        table=table,
        latest=latest_event(arrived_on, landing.manifest.time_zone, settings),
        width=_embedding_width(files, tables, arrived_on, settings) if table is LandingTable.items else None,
        root=landing.root,
        keys=keys,
    )
    with staging(tables.root, settings.memory_gib) as staged:
        job = Job(tables, arrived_on, staged, rules, tombstones, settings, engine)
        in_buckets = table is LandingTable.events and len(parts) > 1
        arrival = ArrivalInBuckets.judge(job, parts) if in_buckets else WholeArrival.judge(job, parts)
        found = arrival.found
        tables.write_batches(
            f"quarantine_{table.value}", pl.Schema(QUARANTINE_SCHEMA), map(read_piece, arrival.rejected), partition
        )
        _stop_if_too_many(
            found,
            table,
            arrived_on,
            settings=settings,
            dated_by="" if day else f" {history_dated_by(landing, arrived_on)}",
        )
        if day is None and found.rows > found.broken.total():
            record_history_day(tables, arrived_on)
        begin = None if day is None else day_end(day - timedelta(days=1), landing.manifest.time_zone)
        written = arrival.write(begin)
    record_arrival(tables, table, arrived_on, landed)
    forgotten = found.forgotten + written.forgotten
    return IngestReport(
        rows_read=found.rows,
        rows_written=written.rows,
        duplicates=found.rows - found.broken.total() - forgotten - written.rows,
        quarantined=found.by_rule(),
        lost_numbers=dict(found.lost),
        late=written.late,
        forgotten=forgotten,
        files=len(files),
        parts=len(parts),
        ignored_columns=tuple(sorted(found.ignored_columns)),
        seconds=perf_counter() - started,
    )


def _embedding_width(files: Sequence[Path], tables: Tables, arrived_on: date, settings: DataSettings) -> int | None:
    known = known_embedding_width(tables, arrived_on)
    return known or embedding_width(read_arrival(path, LandingTable.items, settings.batch_bytes) for path in files)


def known_embedding_width(tables: Tables, before: date) -> int | None:
    """Return how many numbers the first embeddings before a day have; None where no embedding arrived before.

    Later arrivals have no say: a day that is ingested again is judged as at the first time.
    """
    if not tables.exists(LandingTable.items.value):
        return None
    arrivals = tables.scan(LandingTable.items.value)
    for day in [day for day in tables.days(LandingTable.items.value, "arrival_date") if day < before]:
        widths = arrivals.filter(pl.col("arrival_date") == day).select(pl.col("embedding").list.len())
        first = widths.drop_nulls().head(1).collect()
        if len(first):
            return int(first.item())
    return None


def latest_event(arrival_day: date, time_zone: str, settings: DataSettings) -> datetime:
    """Return the last moment at which an event that arrives on ``arrival_day`` may have happened."""
    return day_end(arrival_day, time_zone) + timedelta(hours=settings.future_tolerance_hours)


def _stop_if_too_many(
    found: Found, table: LandingTable, arrived_on: date, *, settings: DataSettings, dated_by: str
) -> None:
    rejected = found.broken.total()
    if not found.rows or rejected / found.rows <= settings.maximum_quarantine_share:
        return
    file, rule = min(found.broken, key=lambda each: (-found.broken[each], each))
    place, content = found.examples[file, rule]
    dated_by = dated_by if rule == NOT_AFTER_ARRIVAL else ""
    raise QuarantineExceeded(
        f"{file}: {found.broken[file, rule]:,} rows break the rule '{rule}'. Together {rejected:,} of {found.rows:,} "
        f"rows of {table.value} that arrived on {arrived_on} are quarantined, {rejected / found.rows:.1%} against a "
        f"maximum of {settings.maximum_quarantine_share:.1%}.{dated_by} Example, {place}: "
        f"{_shown(content)}. Every such row is in table quarantine_{table.value}; correct the "
        "export and run the day again, or raise ADSEQ_DATA__MAXIMUM_QUARANTINE_SHARE. The day's previous rows stay."
    )


def _shown(content: str) -> str:
    """Return a row's content for a message: only the contract's columns, without the personal ones.

    The message is kept in places that nobody searches for users.
    """
    known = {name for schema in SCHEMAS.values() for name in pl.Schema(schema)} - PERSONAL
    shown = {name: value for name, value in json.loads(content).items() if name in known}
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))[:_EXAMPLE_CHARACTERS]

"""Any CSV, JSON-lines or Parquet export -> landing zone, as a mapping says.

An export is read once a table, batch by batch, into a staging directory. The days of arrival are decided there, so
that memory does not grow with the export.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import polars as pl

from warehouse.contracts import KEYS, REQUIRED_COLUMNS, SCHEMAS, VERSIONED, LandingTable
from warehouse.importers.conversion import TIME_FORMAT, expression
from warehouse.importers.event_ids import content_id, given_or_content_id, with_distinct_ids
from warehouse.importers.exports import Export, Rejected
from warehouse.importers.formats import open_export
from warehouse.importers.landing_writer import SourceError, sink, staged
from warehouse.importers.mapping import ColumnSource, MappingError, TableMapping
from warehouse.importers.mapping import Mapping as LogMapping
from warehouse.importers.nesting import NestedPath, check_one_list, nested_path, with_nested
from warehouse.importers.unread import UnreadNumbers
from warehouse.ingest.read import SOURCE_FILE, SOURCE_ROW
from warehouse.landing import Landing, Manifest
from warehouse.spill import Staging, staging

DAY, SEQUENCE = "day_of_arrival", "row_of_the_export"
WRITTEN_TIME = "time_as_written"
_GAP_DAYS = 30  # between two of the days that land one by one: then one of their times may be wrong


@dataclass(frozen=True)
class TabularSummary:
    """The rows and days that an import wrote.

    Attributes:
        rows: written, by table.
        undated: events whose time cannot be read; in the history, where ingestion quarantines them.
        first_time, last_time: of the events whose time can be read, UTC.
        days: the days that land one by one.
        unused: columns of the export that the mapping does not read.
        time_zone: of the log.
        notes: further facts about the rows, a sentence each.
    """

    rows: dict[LandingTable, int]
    undated: int
    first_time: datetime
    last_time: datetime
    days: tuple[date, ...]
    unused: tuple[str, ...]
    time_zone: str
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the summary for people, a fact a line."""
        lines = [f"{rows:,} {table.value}" for table, rows in self.rows.items()]
        first, last = (time.astimezone(ZoneInfo(self.time_zone)) for time in (self.first_time, self.last_time))
        lines.append(f"{first:%Y-%m-%d} to {last:%Y-%m-%d}")
        lines.append(
            f"history until {self.days[0] - timedelta(days=1)}, daily partitions {self.days[0]} to {self.days[-1]}"
        )
        lines += self.notes
        if self.unused:
            lines.append(f"columns that the mapping does not read: {', '.join(self.unused)}")
        return lines


def import_tables(files: Sequence[Path], mapping: LogMapping, landing: Landing, memory_gib: float) -> TabularSummary:
    """Write ``files`` as ``mapping`` says into an empty or new landing zone.

    Events arrive on the day they happened, in the time zone of the log; the last ``daily_days`` days with events become
    daily partitions, everything earlier the history. Rows of other tables arrive with the history, or by ``arrived``;
    of several rows with one key in one arrival the last one stays.

    Raises:
        MappingError: a column that the mapping reads is in no file, or no file is of a table's patterns.
        SourceError: a file cannot be read, no time can, the log has too few days, or the landing zone is not empty.
    """
    with (
        staged(landing) as zone,
        TemporaryDirectory(dir=zone.root, prefix=".") as directory,
        staging(Path(directory), memory_gib) as pieces,
    ):
        copies = Path(directory) / "copies"
        copies.mkdir()
        wanted = {name for table in mapping.table for _, source in table.sources for name in source.read}
        exports = [open_export(path, copies, mapping.log.encoding, wanted) for path in files]
        readings = [_Reading.of(table, exports, mapping.log.time_zone) for table in mapping.table]
        rejected, notes = Rejected(), [note for note in map(_encoding, exports) if note]
        for reading in readings:
            notes += _stage(pieces, reading, rejected)
        counted = _by_day(pieces)
        dated, undated = counted.drop_nulls(DAY), _undated(pieces, counted)
        days = _daily_days(dated, mapping.log.daily_days, undated)
        written = {
            reading.table.into: _write(zone, reading.table.into, pieces, days=days, notes=notes) for reading in readings
        }
        zone.write_manifest(_manifest(mapping))
    return TabularSummary(
        rows=written,
        undated=int(counted.filter(pl.col(DAY).is_null())["rows"].sum()),
        first_time=dated["first"].min(),  # type: ignore[arg-type]
        last_time=dated["last"].max(),  # type: ignore[arg-type]
        days=tuple(days),
        unused=_unused(exports, readings),
        time_zone=mapping.log.time_zone,
        notes=tuple(note for note in [*rejected.described(), *notes, undated, _gap(days)] if note),
    )


@dataclass(frozen=True)
class _Reading:
    """A table, and the files that its rows come out of."""

    table: TableMapping
    exports: tuple[Export, ...]
    time_zone: str

    @classmethod
    def of(cls, table: TableMapping, exports: Sequence[Export], time_zone: str) -> _Reading:
        """Choose a table's files, and check the mapping against their columns.

        Raises:
            MappingError: no file is of the table's patterns, or no such file has a column that is read.
        """
        where = f"[[table]] into = {table.into.value!r}"
        chosen = [each for each in exports if any(fnmatch(each.path.name, pattern) for pattern in table.files)]
        if not chosen:
            names = ", ".join(export.path.name for export in exports)
            raise MappingError(f"{where}: no given file matches files = {list(table.files)}. Given files: {names}.")
        reading = cls(table, tuple(chosen), time_zone)
        for name, source in table.sources:
            for export in chosen:
                reading._check(where, name, source, export)
        for export in chosen:
            check_one_list(reading.paths(export))
        return reading

    def _check(self, where: str, name: str, source: ColumnSource, export: Export) -> None:
        """Check that a file has a needed column, or any file an optional column."""
        # A line of JSON lines leaves out what it does not have.
        needed = name in REQUIRED_COLUMNS[self.table.into] or (len(self.exports) == 1 and not export.may_leave_out)
        there = [export] if needed else self.exports
        if not needed and any(each.may_leave_out for each in there):
            return
        for column in source.read:
            if not source.any_of and not any(_has(each, column) for each in there):
                raise MappingError(
                    f"{where}: {name} is to come from column {column!r}, and {export.path} has "
                    f"{', '.join(export.names)}"
                )
        if source.any_of and not any(_has(each, column) for each in there for column in source.any_of):
            raise MappingError(
                f"{where}: {name} is to come from any of {list(source.any_of)}, and {export.path} has "
                f"{', '.join(export.names)}"
            )

    @property
    def read(self) -> tuple[str, ...]:
        """Return the columns and paths that are read."""
        return tuple(dict.fromkeys(column for _, source in self.table.sources for column in source.read))

    def paths(self, export: Export) -> list[NestedPath]:
        """Return the read columns that are paths into a column of the file."""
        found = [nested_path(name, export.names) for name in self.read]
        return [path for path in found if path is not None]

    def absent(self, export: Export) -> list[str]:
        """Return the read columns that the file does not have."""
        return [name for name in self.read if not _has(export, name)]

    def batches(self, export: Export, rejected: Rejected) -> Iterator[pl.DataFrame]:
        """Yield a file's rows in the table's columns, with their places and the day of arrival."""
        paths = self.paths(export)
        for batch in export.batches(rejected):
            rows = with_nested(batch, paths)
            written = rows.select(*self._columns(rows, export.names), SOURCE_FILE, SOURCE_ROW)
            yield written.with_columns(self._days(rows, written).alias(DAY))

    def _columns(self, rows: pl.DataFrame, names: Sequence[str]) -> list[pl.Expr]:
        schema, required = pl.Schema(SCHEMAS[self.table.into]), REQUIRED_COLUMNS[self.table.into]
        columns = {
            name: expression(source, schema[name], self.time_zone, names=rows.columns, plausible=name in required)
            for name, source in self.table.columns.items()
        }
        if self.table.into is LandingTable.events:
            given = columns.get("event_id")
            columns["event_id"] = content_id(names) if given is None else given_or_content_id(given, names)
            written = [pl.col(name) for name in self.table.columns["event_time"].read if name in rows.columns]
            columns[WRITTEN_TIME] = pl.coalesce([*written, pl.lit(None, pl.String)])
        return [column.alias(name) for name, column in columns.items()]

    def _days(self, rows: pl.DataFrame, written: pl.DataFrame) -> pl.Series:
        """Return the days of arrival; null where a row arrives with the history or the day is unknown."""
        if self.table.arrival is None:
            return pl.Series([None], dtype=pl.Date).new_from_index(0, rows.height)
        if self.table.arrived is None:  # events and impressions arrive when they happen
            texts = written["event_time" if "event_time" in written.columns else "request_time"]
        else:
            kind = pl.Datetime("us", "UTC")
            arrived = expression(self.table.arrived, kind, self.time_zone, names=rows.columns, plausible=True)
            texts = rows.with_columns(arrived.alias(DAY))[DAY]
        times = texts.str.to_datetime(TIME_FORMAT, time_unit="us", time_zone="UTC", strict=False)
        return times.dt.convert_time_zone(self.time_zone).dt.date()


def _has(export: Export, column: str) -> bool:
    return column in export.names or nested_path(column, export.names) is not None


def _stage(pieces: Staging, reading: _Reading, rejected: Rejected) -> list[str]:
    """Read the files of a table, once each, in order. Return sentences about changed or lost rows."""
    table, read, nameless, numbers = reading.table.into, 0, 0, UnreadNumbers(reading.table.into)
    keys = KEYS[table] if table in VERSIONED else ()
    notes = []
    for export in reading.exports:
        absent = reading.absent(export)
        if absent:
            notes.append(f"{export.path} has no column {', '.join(map(repr, absent))}: it is empty in {table.value}")
        for batch in reading.batches(export, rejected):
            named = batch.filter(pl.all_horizontal(pl.col(key).is_not_null() for key in keys)) if keys else batch
            nameless += batch.height - named.height
            numbers.count(named)
            pieces.add(table.value, named.with_row_index(SEQUENCE, read))
            read += named.height
    if nameless:
        notes.append(f"{nameless:,} rows of the export name no {' and '.join(keys)}: they are no {table.value}")
    return [*notes, *numbers.described()]


def _by_day(pieces: Staging) -> pl.DataFrame:
    """Return the number of rows, and the first and last time, of each day with events."""
    time = pl.col("event_time").str.to_datetime(TIME_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    days = pieces.scan(LandingTable.events.value).group_by(DAY).agg(rows=pl.len(), first=time.min(), last=time.max())
    return days.collect(engine="streaming")


def _undated(pieces: Staging, counted: pl.DataFrame) -> str | None:
    """Return a sentence about the events whose time cannot be read, with the first such event; None without any."""
    undated = int(counted.filter(pl.col(DAY).is_null())["rows"].sum())
    if not undated:
        return None
    events = pieces.scan(LandingTable.events.value)
    first = events.filter(pl.col(DAY).is_null()).select(SOURCE_FILE, SOURCE_ROW, WRITTEN_TIME).head(1).collect()
    file, number, written = first.row(0)
    return (
        f"{undated:,} events whose time cannot be read, or is before 1990 or after 2100, e.g. {file} {number}: "
        f"{written!r}. Ingestion will quarantine them; a format or a unit of event_time in the mapping may read them"
    )


def _daily_days(dated: pl.DataFrame, wanted: int, undated: str | None) -> list[date]:
    """Return the days that land one by one."""
    if dated.is_empty() and undated:
        raise SourceError(f"No event has a time that can be read: {undated}.")
    if len(dated) <= wanted:
        raise SourceError(
            f"the export has {len(dated)} days with events, and {wanted} of them are to land one by one, with at least "
            "one more for the history: set daily_days under [log] to less, or give more files"
            + (f" ({undated})" if undated else "")
        )
    return dated[DAY].sort().to_list()[-wanted:]


def _gap(days: Sequence[date]) -> str | None:
    """Return a sentence about days without events among the last days; None without any.

    The days after such a gap may be dated wrongly.
    """
    for before, after in pairwise(days):
        if (after - before).days > _GAP_DAYS:
            return f"nothing happens from {before} to {after}: are the times of {after} right?"
    return None


def _encoding(export: Export) -> str | None:
    if export.encoding in ("", "utf-8", "utf-8-sig"):
        return None
    guess = "" if export.encoding.startswith("utf") else "; another one can be named as encoding under [log]"
    return f"{export.path} is not UTF-8 and was read as {export.encoding}{guess}"


def _write(zone: Landing, table: LandingTable, pieces: Staging, *, days: Sequence[date], notes: list[str]) -> int:
    """Write the history and each of ``days``. Rows that arrived on another day, or on an unknown day, are history."""
    name = table.value
    if table is LandingTable.events:
        name, distinct = with_distinct_ids(pieces, SEQUENCE)
        notes += distinct
    elif table in VERSIONED:  # of events and impressions ingestion finds those that are there twice
        name = _last(table, pieces, days)
    parts = [(None, ~pl.col(DAY).is_in(days).fill_null(False)), *((day, pl.col(DAY) == day) for day in days)]
    for day, condition in parts:
        rows = pieces.scan(name).filter(condition).drop(SEQUENCE, DAY, WRITTEN_TIME, strict=False)
        sink(zone, table, day, rows)
    written = pl.scan_parquet([path for day, _ in parts for path in zone.files(table, day)], glob=False)
    return int(written.select(pl.len()).collect().item())


def _last(table: LandingTable, pieces: Staging, days: Sequence[date]) -> str:
    """Stage the last row of each key in each arrival. Return the name. Only keys are sorted: rows may be wide."""
    listed = ", ".join(f"DATE '{day}'" for day in days)
    arrival = f"CASE WHEN {DAY} IN ({listed}) THEN {DAY} END"
    place = f"row_number() OVER (PARTITION BY {', '.join(KEYS[table])}, {arrival} ORDER BY {SEQUENCE} DESC)"
    name = f"{table.value}_last"
    pieces.execute(f"CREATE TABLE {name}_rows AS SELECT {SEQUENCE} FROM {table.value} QUALIFY {place} = 1")
    for piece in pieces.pieces(table.value):
        kept = pieces.within(f"{name}_rows", SEQUENCE, piece)
        pieces.add(name, piece.filter(pl.col(SEQUENCE).is_in(kept.implode())))
    return name


def _manifest(mapping: LogMapping) -> Manifest:
    log = mapping.log
    return Manifest(
        name=log.name,
        time_zone=log.time_zone,
        positive_events=list(log.positive_events),
        prediction_window_days=log.prediction_window_days,
        repeats_count=log.repeats_count,
        onsite_events=log.onsite_events,
    )


def _unused(exports: Sequence[Export], readings: Sequence[_Reading]) -> tuple[str, ...]:
    """Return the columns of the export that no table reads, not even through a path."""
    unused = set()
    for export in exports:
        read = {name for reading in readings if export in reading.exports for name in reading.read}
        within = {path.column for reading in readings for path in reading.paths(export)}
        unused |= set(export.names) - read - within
    return tuple(sorted(unused))

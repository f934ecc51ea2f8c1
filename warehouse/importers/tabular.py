"""Any CSV, JSON-lines or Parquet export -> landing zone, as a mapping says.

An export is read once, batch by batch, into a staging directory; what arrives on which day is decided there, so that
memory does not grow with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from warehouse.contracts import KEYS, SCHEMAS, LandingTable
from warehouse.importers.mapping import Mapping as LogMapping
from warehouse.importers.mapping import MappingError, Source, TableMapping, expression
from warehouse.importers.writing import SourceError, sink, staged
from warehouse.landing import Landing, Manifest
from warehouse.reading import FORMATS, format_of, read_through
from warehouse.staging import BATCH_ROWS, Staging, staging

DAY, SEQUENCE = "day_of_arrival", "row_of_the_export"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%.fZ"  # as ``expression`` writes times
SEEN_LINES = 100_000  # of JSON lines: a field that comes later is not seen


@dataclass(frozen=True)
class TabularSummary:
    """What an import wrote."""

    rows: dict[LandingTable, int]
    undated: int  # events whose time cannot be read; in the history, where ingestion quarantines them
    first_time: datetime
    last_time: datetime
    days: tuple[date, ...]  # that land one by one
    unused: tuple[str, ...]  # columns of the export that the mapping does not read

    def lines(self) -> list[str]:
        """The summary for people, a fact a line."""
        lines = [f"{rows:,} {table.value}" for table, rows in self.rows.items()]
        lines.append(f"{self.first_time:%Y-%m-%d} to {self.last_time:%Y-%m-%d}")
        lines.append(
            f"history until {self.days[0] - timedelta(days=1)}, daily partitions {self.days[0]} to {self.days[-1]}"
        )
        if self.undated:
            lines.append(f"{self.undated:,} events whose time cannot be read: ingestion will quarantine them")
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
        SourceError: a file cannot be read, the log has too few days, or the landing zone is not empty.
    """
    for path in files:
        if path.name.lower().endswith(".gz"):
            _check_whole(path)
    exports = {table.into: _exports(files, table, mapping.log.time_zone) for table in mapping.table}
    with (
        staged(landing) as zone,
        TemporaryDirectory(dir=zone.root, prefix=".") as directory,
        staging(Path(directory), memory_gib) as pieces,
    ):
        for table, of_table in exports.items():
            _stage(pieces, table, of_table)
        counted = _by_day(pieces)
        dated = counted.drop_nulls(DAY)
        days = _daily_days(dated, mapping.log.daily_days)
        written = {table: _write(zone, table, pieces, days) for table in exports}
        zone.write_manifest(_manifest(mapping))
    return TabularSummary(
        rows=written,
        undated=int(counted.filter(pl.col(DAY).is_null())["rows"].sum()),
        first_time=dated["first"].min(),  # type: ignore[arg-type]
        last_time=dated["last"].max(),  # type: ignore[arg-type]
        days=tuple(days),
        unused=_unused(files, mapping),
    )


def scan(path: Path) -> pl.LazyFrame:
    """A file's rows, every column as text.

    Raises:
        SourceError: unknown format.
    """
    suffix = format_of(path)
    if suffix is None:
        raise SourceError(f"{path}: unknown format; adseq reads {', '.join(FORMATS)}")
    if suffix == ".parquet":
        return pl.scan_parquet(path, glob=False).with_columns(pl.all().cast(pl.String, strict=False))
    if suffix.startswith(".csv"):
        return pl.scan_csv(path, infer_schema=False, glob=False)
    names = pl.scan_ndjson(path, infer_schema_length=SEEN_LINES).collect_schema().names()
    return pl.scan_ndjson(path, schema=dict.fromkeys(names, pl.String))


def _check_whole(path: Path) -> None:
    try:
        read_through(path)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}. Export or download it again") from error


@dataclass(frozen=True)
class _Export:
    """A file, and how a table's rows come out of it: its columns as text, and the day of arrival, null where it cannot
    be told."""

    path: Path
    rows: pl.LazyFrame
    columns: list[pl.Expr]


def _exports(files: Sequence[Path], table: TableMapping, time_zone: str) -> list[_Export]:
    chosen = [path for path in files if any(fnmatch(path.name, pattern) for pattern in table.files)]
    if not chosen:
        names = ", ".join(path.name for path in files)
        raise MappingError(
            f"[[table]] into = {table.into.value!r}: no file is like {list(table.files)} (given: {names})"
        )
    return [_of_file(path, table, time_zone) for path in chosen]


def _of_file(path: Path, table: TableMapping, time_zone: str) -> _Export:
    try:
        rows = scan(path)
        names = rows.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise SourceError(f"{path} cannot be read: {first_line}") from error
    sources = [*table.columns.items(), *([("arrived", table.arrived)] if table.arrived else [])]
    for name, source in sources:
        for column in source.read:
            if column not in names:
                raise MappingError(
                    f"[[table]] into = {table.into.value!r}: {name} is to come from column {column!r}, and {path} has "
                    f"{', '.join(names)}"
                )
    schema = pl.Schema(SCHEMAS[table.into])
    columns = [expression(source, schema[name], time_zone).alias(name) for name, source in table.columns.items()]
    if table.into is LandingTable.events and "event_id" not in table.columns:
        columns.append(_content_id(names).alias("event_id"))
    return _Export(path, rows, [*columns, _day(table.arrival, time_zone).alias(DAY)])


def _content_id(names: Sequence[str]) -> pl.Expr:
    """128 bits of what a row says: an export without ids has the same event twice where a row is there twice."""
    row = pl.struct(names)
    return pl.format("{}{}", *(row.hash(seed).cast(pl.String).str.zfill(20) for seed in (0, 1)))


def _day(source: Source | None, time_zone: str) -> pl.Expr:
    if source is None:
        return pl.lit(None, pl.Date)
    text = expression(source, pl.Datetime("us", "UTC"), time_zone)
    time = text.str.to_datetime(TIME_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    return time.dt.convert_time_zone(time_zone).dt.date()


def _stage(pieces: Staging, table: LandingTable, exports: Sequence[_Export]) -> None:
    """Read the files of a table, once each, in order."""
    read = 0
    for export in exports:
        for batch in _converted(export):
            pieces.add(table.value, batch.with_row_index(SEQUENCE, read))
            read += batch.height


def _converted(export: _Export) -> Iterator[pl.DataFrame]:
    """A file's rows batch by batch, at the end none. A batch is converted after it is read: a query that did both would
    read on, and hold what it has read."""
    nothing = export.rows.collect_schema().to_frame()
    batches = export.rows.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, lazy=True)
    try:
        for batch in chain(batches, [nothing]):
            yield batch.select(export.columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{export.path} cannot be read: {str(error).strip().splitlines()[0]}") from error


def _by_day(pieces: Staging) -> pl.DataFrame:
    """Rows, first and last time of each day with events."""
    time = pl.col("event_time").str.to_datetime(TIME_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    days = pieces.scan(LandingTable.events.value).group_by(DAY).agg(rows=pl.len(), first=time.min(), last=time.max())
    return days.collect(engine="streaming")


def _daily_days(dated: pl.DataFrame, wanted: int) -> list[date]:
    """The days that land one by one."""
    if len(dated) <= wanted:
        raise SourceError(
            f"the export has {len(dated)} days with events, and {wanted} of them are to land one by one, with at least "
            "one more for the history: set daily_days under [log] to less, or give more files"
        )
    return dated[DAY].sort().to_list()[-wanted:]


def _write(zone: Landing, table: LandingTable, pieces: Staging, days: Sequence[date]) -> int:
    """Write the history and each of ``days``. What arrived on another day, or nobody knows when, is history."""
    # Of several rows with one key the last one stays; of events and impressions ingestion finds those.
    name = table.value if table in (LandingTable.events, LandingTable.impressions) else _last(table, pieces, days)
    parts = [(None, ~pl.col(DAY).is_in(days).fill_null(False)), *((day, pl.col(DAY) == day) for day in days)]
    for day, condition in parts:
        sink(zone, table, day, pieces.scan(name).filter(condition).drop(SEQUENCE, DAY))
    written = pl.scan_parquet([path for day, _ in parts for path in zone.files(table, day)])
    return int(written.select(pl.len()).collect().item())


def _last(table: LandingTable, pieces: Staging, days: Sequence[date]) -> str:
    """Stage the last row of each key in each arrival. Returns the name. Only keys are sorted: rows may be wide."""
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
    )


def _unused(files: Sequence[Path], mapping: LogMapping) -> tuple[str, ...]:
    there = {name for path in files for name in scan(path).collect_schema().names()}
    sources = [source for table in mapping.table for source in (*table.columns.values(), table.arrived) if source]
    return tuple(sorted(there - {column for source in sources for column in source.read}))

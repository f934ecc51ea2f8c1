"""Forgetting users on request: out of the landing zone and out of every table, with a tombstone that keeps them out.

The tombstone comes first: killed at any point, the same request goes on, and nothing brings back what was removed. It
holds the user's key, not their id.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.ingest.read import LandingError, format_of, text_in
from warehouse.landing import FILES_OF_THE_ROOT, Landing, is_being_written
from warehouse.spill import sweep_staging
from warehouse.tables import Tables

TOMBSTONES = "forgotten"
USER = "user_id"


@dataclass
class InLanding:
    """The rows removed from each file of the landing zone, their users, and the files that were not searched."""

    removed: dict[Path, int] = field(default_factory=dict)  # rows
    users: set[str] = field(default_factory=set)  # who had rows
    unreadable: dict[Path, str] = field(default_factory=dict)  # and why
    not_looked_into: list[Path] = field(default_factory=list)  # still being written, or of no known format


class _Changed(Exception):
    """Somebody else has written the file meanwhile."""


def add_tombstones(tables: Tables, keys: pl.Series, day: date) -> None:
    """Write tombstones that keep users out of every later ingestion."""
    before = tables.read(TOMBSTONES, {"day": day})[USER] if tables.exists(TOMBSTONES) else keys.head(0)
    tables.write(TOMBSTONES, pl.concat([before, keys]).alias(USER).unique().sort().to_frame(), {"day": day})


def forgotten_users(tables: Tables) -> pl.Series:
    """Return the keys of the users who were forgotten."""
    if not tables.exists(TOMBSTONES):
        return pl.Series(USER, [], dtype=pl.String)
    return tables.scan(TOMBSTONES).select(USER).unique().collect()[USER]


def forget_in_landing(landing: Landing, user_ids: Collection[str]) -> InLanding:
    """Rewrite the landing files that have rows of these users. The ids are read as ingestion reads them.

    Files in folders that ingestion does not read are rewritten, too. A file is replaced in one step, byte for byte what
    the file was but for the rows (Parquet: row for row), with its owner, mode and the time of its last change, so that
    nothing takes the file for an arrival. A file that is still being written is left alone: its writer would go on in a
    file that is no longer there.
    """
    found, wanted = InLanding(), frozenset(user_ids)
    for path in _files(landing):
        relative = path.relative_to(landing.root)
        if _names_nobody(relative):
            continue
        unfinished = any(map(is_being_written, relative.parts))
        if unfinished or path.name.startswith("_") or format_of(path) is None:
            if path.stat().st_size:  # an empty one, such as _SUCCESS, is a mark
                found.not_looked_into.append(path)
            continue
        try:
            theirs = _forget_in_file(path.resolve(), wanted)
        except (LandingError, pa.ArrowException, OSError) as error:
            found.unreadable[path] = str(error)
        else:
            if len(theirs):
                found.removed[path] = len(theirs)
                found.users.update(theirs)
    return found


def forget_in_tables(tables: Tables, keys: pl.Series) -> dict[str, int]:
    """Remove the rows of users, and older versions of the tables, from the disk.

    Return the number of rows removed from each table that had any.
    """
    sweep_staging(tables.root)
    removed = {}
    for name in tables.names():
        if name != TOMBSTONES and USER in tables.scan(name).collect_schema():
            removed[name] = tables.drop_users(name, keys)
    return {name: rows for name, rows in removed.items() if rows}


@contextmanager
def _alone_with(path: Path) -> Iterator[os.stat_result]:
    """Hold a file against the service that appends to the file; yield the file's status."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield os.fstat(file.fileno())


def _files(landing: Landing) -> list[Path]:
    """Return all files of the landing zone except its own files. Files in linked folders of an arrival are included."""
    paths = {*landing.root.rglob("*"), *landing.root.glob("*/*/*")}  # rglob follows no link
    return sorted(path for path in paths if path.is_file() and path.name not in FILES_OF_THE_ROOT)


def _names_nobody(relative: Path) -> bool:
    """Whether the contract of a file's table has no users. ``relative`` is the file's path within the landing zone."""
    table = relative.parts[0]
    return table in set(LandingTable) and USER not in pl.Schema(SCHEMAS[LandingTable(table)])


def _forget_in_file(path: Path, user_ids: frozenset[str]) -> pl.Series:
    """Remove the rows of these users; return the user of each removed row."""
    for _ in range(3):
        with _alone_with(path) as found:
            users = text_in(path, USER)
            theirs = None if users is None else users.is_in(list(user_ids)).fill_null(False)
            if users is None or theirs is None or not theirs.any():
                return pl.Series(USER, [], dtype=pl.String)
            content = _parquet_less(path, theirs) if format_of(path) == ".parquet" else _text_less(path, theirs)
            try:
                _replace(path, content, found)
            except _Changed:
                continue
            return users.filter(theirs)
    raise LandingError(
        f"{path}: another program keeps writing this file, so the user's rows could not be removed. Stop that program, "
        "then give the same command again."
    )


def _replace(path: Path, content: bytes, found: os.stat_result) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), found.st_mode)
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
            os.fsync(file.fileno())
        os.utime(temporary, ns=(found.st_atime_ns, found.st_mtime_ns))
        now = path.stat()
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (found.st_ino, found.st_size, found.st_mtime_ns):
            raise _Changed
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parquet_less(path: Path, theirs: pl.Series) -> bytes:
    file, buffer = pq.ParquetFile(path), io.BytesIO()
    groups = file.metadata.num_row_groups
    compression = file.metadata.row_group(0).column(0).compression if groups else "snappy"
    pq.write_table(file.read().filter((~theirs).to_arrow()), buffer, compression=compression)
    return buffer.getvalue()


def _text_less(path: Path, theirs: pl.Series) -> bytes:
    """Return a file of CSV or JSON lines without the rows of ``theirs``; the other rows are unchanged.

    Raises:
        LandingError: the file does not fall into as many records as ingestion finds rows.
    """
    zipped = path.name.lower().endswith(".gz")
    raw = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    is_csv = ".csv" in (format_of(path) or "")
    records = _csv_records(raw) if is_csv else _lines(raw)
    header, records = (records[:1], records[1:]) if is_csv else ([], records)
    rows = [number for number, record in enumerate(records) if is_csv or record.strip()]
    if len(rows) != len(theirs):
        raise LandingError(f"{path}: {len(theirs)} rows in {len(rows)} records; write it again without odd line ends")
    dropped = {rows[at] for at in theirs.arg_true().to_list()}
    kept = b"".join([*header, *(record for number, record in enumerate(records) if number not in dropped)])
    return gzip.compress(kept) if zipped else kept


def _lines(raw: bytes) -> list[bytes]:
    """Return the lines with their line ends."""
    return io.BytesIO(raw).readlines()


def _csv_records(raw: bytes) -> list[bytes]:
    """Return the CSV records with their line ends. A line end between quotes does not end a record."""
    records, within_quotes = [b""], False
    for line in _lines(raw):
        records[-1] += line
        within_quotes ^= line.count(b'"') % 2 == 1
        if not within_quotes:
            records.append(b"")
    return records if records[-1] else records[:-1]

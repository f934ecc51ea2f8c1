"""Forgetting users on request: out of the landing zone and out of every table, with a tombstone that keeps them out.

The tombstone comes first: killed at any point, the same request goes on, and nothing brings back what was removed. It
holds the user's key, not their id.
"""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse.home import write_atomically
from warehouse.landing import Landing
from warehouse.reading import FORMATS
from warehouse.tables import Tables

TOMBSTONES = "forgotten"
USER = "user_id"


class CannotForget(RuntimeError):
    """A landing file may name a user and cannot be rewritten; says which and what to do."""


def bury(tables: Tables, keys: pl.Series, day: date) -> None:
    """Keep users out of every later ingestion."""
    before = tables.read(TOMBSTONES, {"day": day})[USER] if tables.exists(TOMBSTONES) else keys.head(0)
    tables.write(TOMBSTONES, pl.concat([before, keys]).alias(USER).unique().sort().to_frame(), {"day": day})


def forgotten_users(tables: Tables) -> pl.Series:
    """The keys of users who were forgotten."""
    if not tables.exists(TOMBSTONES):
        return pl.Series(USER, [], dtype=pl.String)
    return tables.scan(TOMBSTONES).select(USER).unique().collect()[USER]


def forget_in_landing(landing: Landing, user_ids: Collection[str]) -> dict[Path, int]:
    """Rewrite the landing files that have rows of these users. Returns the rows removed, a file.

    A file is replaced in one step, keeps the time of its last change, so that nothing takes it for an arrival, and is
    rewritten in its own format.

    Raises:
        CannotForget: a file cannot be read. Those before it are done.
    """
    removed = {}
    for path in sorted(landing.root.glob("*/*/*")):
        if path.is_file() and _format(path) is not None:
            rows = _forget_in_file(path, frozenset(user_ids))
            if rows:
                removed[path] = rows
    return removed


def forget_in_tables(tables: Tables, keys: pl.Series) -> dict[str, int]:
    """Remove users' rows, and older versions of the tables, from the disk. Returns the rows removed, a table."""
    removed = {}
    for name in tables.names():
        if name != TOMBSTONES and USER in tables.scan(name).collect_schema():
            removed[name] = tables.drop_users(name, keys)
    return {name: rows for name, rows in removed.items() if rows}


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Hold a landing file against another process that appends to it, or rewrites it."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_in_file(path: Path, user_ids: frozenset[str]) -> int:
    with alone_with(path):
        times, mode = path.stat(), path.stat().st_mode
        try:
            content, removed = _without_users(path, user_ids)
        except (OSError, EOFError, ValueError, pa.ArrowException, csv.Error) as error:
            first_line = str(error).strip().split("\n")[0]
            raise CannotForget(
                f"{path} cannot be read ({first_line}), so that nobody knows whether it names a user who is to be "
                "forgotten. Mend it or take it out of the landing zone, then give the same command again."
            ) from error
        if removed:
            write_atomically(path, content)
            path.chmod(mode)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return removed


def _format(path: Path) -> str | None:
    """What a file is, also one that is still being written; None for what ingestion never reads."""
    name = path.name.lower().removesuffix(".tmp").removesuffix(".part")
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def _without_users(path: Path, user_ids: frozenset[str]) -> tuple[bytes, int]:
    """A file's content without the rows of users, and how many rows these are."""
    suffix = _format(path) or ""
    if suffix == ".parquet":
        return _parquet_without(path, user_ids)
    zipped = suffix.endswith(".gz")
    raw = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    lines = _csv_without if suffix.startswith(".csv") else _json_lines_without
    kept, removed = lines(raw, user_ids)
    return (gzip.compress(kept) if zipped and removed else kept), removed


def _parquet_without(path: Path, user_ids: frozenset[str]) -> tuple[bytes, int]:
    file = pq.ParquetFile(path)
    if USER not in file.schema_arrow.names:
        return b"", 0
    users = file.read([USER]).column(USER).cast(pa.string())
    theirs = pc.fill_null(pc.is_in(users, value_set=pa.array(sorted(user_ids), pa.string())), False)
    removed = pc.sum(theirs).as_py() or 0
    if not removed:
        return b"", 0
    buffer = io.BytesIO()
    pq.write_table(file.read().filter(pc.invert(theirs)), buffer, compression=_compression(file))
    return buffer.getvalue(), removed


def _compression(file: pq.ParquetFile) -> str:
    return str(file.metadata.row_group(0).column(0).compression) if file.metadata.num_row_groups else "snappy"


def _csv_without(raw: bytes, user_ids: frozenset[str]) -> tuple[bytes, int]:
    rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
    if not rows or USER not in rows[0]:
        return raw, 0
    column = rows[0].index(USER)
    kept = [row for row in rows if len(row) <= column or row[column] not in user_ids]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(kept)
    return text.getvalue().encode(), len(rows) - len(kept)


def _json_lines_without(raw: bytes, user_ids: frozenset[str]) -> tuple[bytes, int]:
    lines = raw.split(b"\n")
    kept = [line for line in lines if not line.strip() or _user_of(line) not in user_ids]
    return b"\n".join(kept), len(lines) - len(kept)


def _user_of(line: bytes) -> str | None:
    row = json.loads(line)
    user = row.get(USER) if isinstance(row, dict) else None
    return None if user is None else str(user)

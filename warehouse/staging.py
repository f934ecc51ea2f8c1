"""Rows on the disk between two passes over them, so that memory is bounded by a setting and not by what arrives.

The first pass adds rows piece by piece; the second reads them in DuckDB, which sorts and joins within a limit and on
the disk beyond it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import polars as pl

STAGING = ".staging"
BATCH_ROWS = 100_000
# What DuckDB may take of the memory; the rest is for what is read from it and written meanwhile.
_FOR_QUERIES = 0.5


@dataclass
class Staging:
    """A directory of pieces by name, and a connection that knows each name as a view."""

    directory: Path
    connection: duckdb.DuckDBPyConnection
    _pieces: dict[str, list[Path]] = field(default_factory=dict)
    _empty: set[str] = field(default_factory=set)

    def add(self, name: str, frame: pl.DataFrame) -> None:
        """Append rows. The first piece of a name says what columns it has, and may be empty."""
        pieces = self._pieces.setdefault(name, [])
        if frame.is_empty() and pieces:
            return
        if name in self._empty:  # DuckDB would take the first piece for what is to be expected of the others
            self._empty.remove(name)
            pieces.clear()
        if frame.is_empty():
            self._empty.add(name)
        path = self.directory / f"{name}-{len(pieces):06d}.parquet"
        frame.write_parquet(path, compression="lz4")
        pieces.append(path)
        files = ", ".join(f"'{_quoted(piece)}'" for piece in pieces)
        self.connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet([{files}])")

    def pieces(self, name: str) -> Iterator[pl.DataFrame]:
        """The rows of a name as they were added."""
        for path in self._pieces[name]:
            yield pl.read_parquet(path, glob=False, hive_partitioning=False)

    def scan(self, name: str) -> pl.LazyFrame:
        """The rows of a name as they were added, lazily."""
        return pl.scan_parquet(self._pieces[name], glob=False, hive_partitioning=False)

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Do something that finds nothing."""
        self.connection.execute(sql, parameters)

    def batches(
        self, sql: str, schema: pl.Schema, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[pl.DataFrame]:
        """What a query finds, batch by batch, in the columns of ``schema``; rows may be added meanwhile."""
        for batch in self.connection.cursor().sql(sql, params=parameters).to_arrow_reader(BATCH_ROWS):
            yield pl.DataFrame(batch).select(schema.names()).cast(schema)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The few rows that a query finds."""
        return self.connection.execute(sql).fetchall()


@contextmanager
def staging(root: Path, memory_gib: float) -> Iterator[Staging]:
    """A place for pieces under ``root``, gone afterwards. What killed processes have left there goes, too.

    Args:
        memory_gib: of the process, half of which the queries may take.
    """
    (root / STAGING).mkdir(parents=True, exist_ok=True)
    with _alone(root / STAGING):
        _sweep(root / STAGING)
        directory = Path(mkdtemp(dir=root / STAGING))
        held = _lock(directory)
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = '{int(memory_gib * 1024 * _FOR_QUERIES)}MiB'")
            connection.execute(f"SET temp_directory = '{_quoted(directory / 'spilled')}'")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET TimeZone = 'UTC'")
            yield Staging(directory, connection)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)


def sweep_staging(root: Path) -> None:
    """Remove the pieces that killed processes have left under ``root``."""
    if (root / STAGING).is_dir():
        with _alone(root / STAGING):
            _sweep(root / STAGING)


def _sweep(directory: Path) -> None:
    for left in directory.iterdir():
        try:
            held = _lock(left)
        except (BlockingIOError, FileNotFoundError):  # its process lives, or has just removed it
            continue
        shutil.rmtree(left, ignore_errors=True)
        os.close(held)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    held = os.open(directory, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


def _lock(directory: Path) -> int:
    """Hold a directory for as long as this process lives.

    Raises:
        BlockingIOError: another process holds it.
    """
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise
    return held


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")

"""Rows on the disk between two passes over them, so that memory is bounded by a setting and not by the arrivals.

The first pass adds rows piece by piece; the second reads them in DuckDB, which sorts and joins within a limit and on
the disk beyond it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import polars as pl

STAGING = ".staging"
BATCH_ROWS = 100_000
# What DuckDB may take of the memory; the rest is for what is read from it and written meanwhile.
_FOR_QUERIES = 0.5
_THREAD_MIB = 64  # that a thread of a sort needs, or it fails


class MemoryTooSmall(RuntimeError):
    """The rows that have to be sorted do not fit into the permitted memory, not even with the disk's help."""


@dataclass
class Staging:
    """A directory of pieces by name, and a connection that knows each name as a view."""

    directory: Path
    connection: duckdb.DuckDBPyConnection
    _pieces: dict[str, list[Path]] = field(default_factory=dict)
    _empty: set[str] = field(default_factory=set)
    _new: set[str] = field(default_factory=set)  # names whose view does not know all of their pieces yet

    def add(self, name: str, frame: pl.DataFrame) -> None:
        """Append rows. The first piece of a name sets the columns, and may be empty."""
        if frame.is_empty() and self._pieces.get(name):
            return
        self._append(name, write_piece(self.directory, name, frame))
        if frame.is_empty():
            self._empty.add(name)

    def take(self, name: str, pieces: Iterable[Path]) -> None:
        """Append pieces that others have written. The first pieces of a name are at least one."""
        for path in pieces:
            self._append(name, path)

    def _append(self, name: str, path: Path) -> None:
        pieces = self._pieces.setdefault(name, [])
        if name in self._empty:  # DuckDB would take the first piece for what is to be expected of the others
            self._empty.remove(name)
            pieces.clear()
        pieces.append(path)
        self._new.add(name)

    def view(self, name: str, files: Sequence[str]) -> None:
        """Create view ``name`` over the files of a Delta table that is partitioned by ``arrival_date``."""
        partition = "hive_partitioning = true, hive_types = {'arrival_date': DATE}"
        self.connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{_listed(files)}], {partition})")

    def pieces(self, name: str) -> Iterator[pl.DataFrame]:
        """Yield the rows of a name piece by piece, as they were added."""
        return map(read_piece, self._pieces[name])

    def within(self, table: str, column: str, piece: pl.DataFrame) -> pl.Series:
        """Return the numbers of a table's ``column`` in the piece's range: few, even where the table has many."""
        numbers = piece[column]
        if numbers.is_empty():
            return numbers
        found = self._queried().execute(
            f"SELECT {column} FROM {table} WHERE {column} BETWEEN $first AND $last",
            {"first": numbers.min(), "last": numbers.max()},
        )
        return pl.Series(column, [number for (number,) in found.fetchall()], dtype=numbers.dtype)

    def scan(self, name: str) -> pl.LazyFrame:
        """Return the rows of a name as they were added, lazily."""
        return pl.scan_parquet(self._pieces[name], glob=False, hive_partitioning=False)

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that returns no rows."""
        self._queried().execute(sql, parameters)

    def batches(
        self, sql: str, schema: pl.Schema, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a query, batch by batch, in the columns of ``schema``; rows may be added meanwhile."""
        for batch in self._queried().cursor().sql(sql, params=parameters).to_arrow_reader(BATCH_ROWS):
            yield pl.DataFrame(batch).select(schema.names()).cast(schema)

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query; for queries with few rows."""
        return self._queried().execute(sql, parameters).fetchall()

    def _queried(self) -> duckdb.DuckDBPyConnection:
        """Return the connection, after an update of every view that has new pieces."""
        for name in self._new:
            files = _listed(self._pieces[name])
            self.connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet([{files}])")
        self._new.clear()
        return self.connection


def write_piece(directory: Path, name: str, rows: pl.DataFrame, group: int | None = None) -> Path:
    """Write rows to a new file of a directory, to be read again soon. ``group``: rows of a row group."""
    path = directory / f"{name}-{uuid4().hex}.parquet"
    rows.write_parquet(path, compression="lz4", row_group_size=group)
    return path


def read_piece(path: Path) -> pl.DataFrame:
    """Return the rows of a piece."""
    return pl.read_parquet(path, glob=False, hive_partitioning=False)


def in_full_order(batches: Iterable[pl.DataFrame], first: Sequence[str], last: str) -> Iterator[pl.DataFrame]:
    """Yield rows that are sorted by the columns ``first``, with ties between them in the order of ``last``.

    A query that sorts by numbers and times alone takes half the time of one that compares texts, too, and few rows tie.
    """
    held: pl.DataFrame | None = None
    for batch in batches:
        if held is not None:
            as_the_next = pl.all_horizontal(pl.col(name) == pl.lit(batch[name][0]) for name in first)
            going_on = int(held.select(as_the_next.sum()).item())
            if going_on < len(held):
                yield _ties_sorted(held.head(len(held) - going_on), first, last)
            batch = pl.concat([held.tail(going_on), batch]) if going_on else batch
        held = batch
    if held is not None:
        yield _ties_sorted(held, first, last)


def _ties_sorted(rows: pl.DataFrame, first: Sequence[str], last: str) -> pl.DataFrame:
    as_before = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in first).fill_null(False)
    tied = rows.select((as_before | as_before.shift(-1, fill_value=False)).arg_true()).to_series()
    if tied.is_empty():
        return rows
    order = np.arange(len(rows))
    order[tied] = tied.gather(rows[tied].select(pl.arg_sort_by(*first, last)).to_series())
    return rows[order]


@contextmanager
def staging(root: Path, memory_gib: float) -> Iterator[Staging]:
    """Yield a place for pieces under ``root``, removed afterwards. Pieces of killed processes are removed, too.

    Args:
        memory_gib: of the process, half of which the queries may take.

    Raises:
        MemoryTooSmall: a query needs more.
    """
    (root / STAGING).mkdir(parents=True, exist_ok=True)
    with _alone(root / STAGING):
        _sweep(root / STAGING)
        directory = Path(mkdtemp(dir=root / STAGING))
        held = _lock(directory)
    limit = int(memory_gib * 1024 * _FOR_QUERIES)
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = '{limit}MiB'")
            connection.execute(f"SET threads = {max(1, min(_threads(), limit // _THREAD_MIB))}")
            connection.execute(f"SET temp_directory = '{_quoted(directory / 'spilled')}'")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")  # a slow query would draw one into the output
            yield Staging(directory, connection)
    except Exception as error:  # also of the reader of a query's batches, in words only
        if "Out of Memory Error" in str(error) and "offload" not in str(error):
            raise MemoryTooSmall(
                f"{memory_gib:g} GiB are too little to sort what is there: raise ADSEQ_DATA__MEMORY_GIB and try again. "
                "Nothing was written."
            ) from error
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)


def sweep_staging(root: Path) -> None:
    """Remove the pieces that killed processes have left under ``root``."""
    if (root / STAGING).is_dir():
        with _alone(root / STAGING):
            _sweep(root / STAGING)


def _threads() -> int:
    """Return the threads that a query may have: those of OMP_NUM_THREADS, as numerical libraries do, or the cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    cores = os.cpu_count() or 1
    return min(int(wanted), cores) if wanted.isdecimal() else cores


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
    """Lock a directory until the returned descriptor is closed or this process ends.

    Raises:
        BlockingIOError: another process holds the directory.
    """
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise
    return held


def _listed(paths: Iterable[Path | str]) -> str:
    return ", ".join(f"'{_quoted(path)}'" for path in paths)


def _quoted(path: Path | str) -> str:
    return str(path).replace("'", "''")

"""The warehouse's Delta tables: atomic partition writes and lazy reads.

Delta has no fixed-size lists, so embeddings are stored as ``List(Float32)``; ``vectors`` turns them into a matrix.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction
from numpy.typing import NDArray

from warehouse.delta_log import (
    ADDED_FILES,
    LOG,
    PREDICATE,
    REMOVED_FILES,
    DamagedCommit,
    LogStamp,
    damaged_commits,
    log_stamp,
    missing_versions,
    newest_commit_fault,
    set_aside,
)
from warehouse.remedies import BACKUP, remedy_of_commit, spelt
from warehouse.storage_format import storable, writer_properties

logger = logging.getLogger(__name__)
PartitionValue = str | date
# Nothing reads a column's smallest and largest value from the log, and the log would keep those of rows long removed.
NO_STATISTICS: Mapping[str, str | None] = {"delta.dataSkippingNumIndexedCols": "0"}


class TableMissing(LookupError):
    """A table was read before anything wrote it."""


class TableDamaged(RuntimeError):
    """The log of a table cannot be read; the message names the file and what makes the table whole again."""


@dataclass(frozen=True)
class TableVersion:
    """A table as it was when it was opened.

    Attributes:
        schema: of the rows, partition columns included.
        partition_columns: columns that the table's directories stand for, outermost first.
        files: paths of the data files.
    """

    schema: pl.Schema
    partition_columns: list[str]
    files: list[str]

    def scan(self) -> pl.LazyFrame:
        """Return the rows, lazily."""
        if not self.files:
            return pl.LazyFrame(schema=self.schema)
        partition = {column: self.schema[column] for column in self.partition_columns}
        columns = {column: kind for column, kind in self.schema.items() if column not in partition}
        return pl.scan_parquet(
            self.files,
            schema=columns,
            hive_partitioning=bool(partition),
            hive_schema=partition,
            missing_columns="insert",
            glob=False,
        ).select(self.schema.names())


@dataclass(frozen=True)
class DataFile:
    """A file with rows of one partition that no commit names yet."""

    path: Path
    rows: int
    bytes: int


@dataclass(frozen=True)
class _Held:
    """A table that is open, and the log that it was opened with."""

    stamp: LogStamp
    table: DeltaTable
    version: TableVersion


@dataclass(frozen=True)
class Tables:
    """All Delta tables of one home, by name.

    A table is opened once as long as its log stays as it is: opening reads the whole log of the table.
    """

    root: Path
    _held: dict[str, _Held] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Tables], tuple[Path]]:
        """Hand another process the place of the tables; the process opens them itself."""
        return Tables, (self.root,)

    def path(self, name: str) -> Path:
        return self.root / name

    def exists(self, name: str) -> bool:
        return DeltaTable.is_deltatable(str(self.path(name)))

    def require(self, name: str) -> None:
        """Check that the table exists.

        Raises:
            TableMissing: the table was never written.
        """
        if not self.exists(name):
            raise TableMissing(
                f"table {name!r} does not exist yet under {self.root}: run the asset that writes it first"
            )

    def names(self) -> list[str]:
        """Return the tables that exist, in name order."""
        return sorted(path.name for path in self.root.glob("*") if path.is_dir() and self.exists(path.name))

    def partition_columns(self, name: str) -> list[str]:
        """Return the columns that the table's directories stand for, outermost first."""
        return list(self._open(name).version.partition_columns)

    def write(self, name: str, frame: pl.DataFrame, partition: Mapping[str, PartitionValue]) -> None:
        """Replace one partition by ``frame`` in one atomic commit; an empty frame leaves an empty partition.

        Args:
            name: table name; created on the first write.
            frame: rows without the partition columns.
            partition: partition column -> value, in the order of the directory levels.
        """
        self.write_batches(name, frame.schema, [frame], partition)

    def write_batches(
        self, name: str, schema: pl.Schema, batches: Iterable[pl.DataFrame], partition: Mapping[str, PartitionValue]
    ) -> None:
        """Replace one partition as ``write`` does, by rows that come in batches and are never all in memory.

        Args:
            schema: columns of the batches.
            batches: making them opens no table; delta-rs, which asks for them from within, cannot do both at once.

        Raises:
            TableDamaged: the log of the table cannot be read, and this write does not replace the damaged partition.
        """
        literals = {column: pl.lit(value) for column, value in partition.items()}

        def stored_rows(frame: pl.DataFrame) -> pa.Table:
            return storable(frame.select(schema.names()).with_columns(**literals)).to_arrow()

        stored = stored_rows(pl.DataFrame(schema=schema)).schema
        rows = (batch for frame in batches for batch in stored_rows(frame).cast(stored).to_batches())
        self.make_readable(name, partition)
        table = self._taken(name) if self.exists(name) else None
        write_deltalake(
            table or str(self.path(name)),
            pa.RecordBatchReader.from_batches(stored, rows),
            mode="overwrite",
            partition_by=list(partition),
            predicate=_predicate(partition) if table else None,
            schema_mode="merge" if table else None,
            configuration=None if table else NO_STATISTICS,
            writer_properties=writer_properties(stored),
        )
        if table:
            self._hold(name, log_stamp(self.path(name)), table)

    def partition_directory(self, name: str, partition: Mapping[str, PartitionValue]) -> Path:
        """Return the directory that the data files of a partition lie in, as delta-rs spells it."""
        levels = (f"{column}={quote(_text(value), safe='')}" for column, value in partition.items())
        return self.path(name).joinpath(*levels)

    def commit_files(
        self, name: str, schema: pl.Schema, files: Sequence[DataFile], partition: Mapping[str, PartitionValue]
    ) -> None:
        """Replace one partition by data files that others have written, in one atomic commit.

        Args:
            name: table name; created on the first write.
            schema: of the rows of the files, without the partition columns.
            files: lie in ``partition_directory``; none leave an empty partition.

        Raises:
            TableDamaged: as ``write_batches``.
        """
        if not files:
            self.write_batches(name, schema, [], partition)
            return
        self.make_readable(name, partition)
        literals = {column: pl.lit(value) for column, value in partition.items()}
        stored = storable(pl.DataFrame(schema=schema).with_columns(**literals)).to_arrow().schema
        if not self.exists(name):
            DeltaTable.create(str(self.path(name)), stored, partition_by=list(partition), configuration=NO_STATISTICS)
        directory = self.partition_directory(name, partition)
        replaced = [path for path in self.files(name) if Path(path).parent == directory]
        table = self._taken(name)
        known = {column.name: column.type for column in table.schema().fields}
        columns = Schema.from_arrow(stored).fields
        if changed := [column for column in columns if known.get(column.name, column.type) != column.type]:
            raise TypeError(
                f"table {name!r}: column {changed[0].name!r} is {known[changed[0].name]}, {changed[0].type} came"
            )
        if new := [column for column in columns if column.name not in known]:
            table.alter.add_columns(new)
        values = {column: _text(value) for column, value in partition.items()}
        # A commit with these words can be told from one that has lost a part, as those of delta-rs' own writer.
        told = {
            ADDED_FILES: str(len(files)),
            REMOVED_FILES: str(len(replaced)),
            PREDICATE: _predicate(partition),
        }
        table.create_write_transaction(
            [_add_action(self.path(name), file, values) for file in files],
            "overwrite",
            table.schema(),  # the transaction would take columns away that it is not told
            partition_by=list(partition),
            partition_filters=[(column, "=", value) for column, value in values.items()],
            commit_properties=CommitProperties(custom_metadata=told),
        )
        table.update_incremental()
        self._hold(name, log_stamp(self.path(name)), table)

    def remove(self, name: str, partition: Mapping[str, PartitionValue]) -> None:
        """Remove one partition in one atomic commit; do nothing where the partition or the table does not exist."""
        if self.exists(name):
            self._taken(name).delete(_predicate(partition))

    def drop_users(self, name: str, user_ids: pl.Series) -> int:
        """Remove the rows of users from a table, and every older version of the table from the disk.

        Return the number of removed rows. A partition without these users stays as it is; a partition with no other
        users becomes empty.
        """
        columns = self.partition_columns(name)
        theirs = self.scan(name).filter(pl.col("user_id").is_in(user_ids.implode()))
        touched = theirs.group_by(columns).len().collect()
        for *values, _ in touched.iter_rows():
            partition = dict(zip(columns, values, strict=True))
            rows = self.read(name, partition)
            self.write(name, rows.filter(~pl.col("user_id").is_in(user_ids.implode())), partition)
        self.vacuum(name, timedelta(0))
        return int(touched["len"].sum())

    def vacuum(self, name: str, keep: timedelta) -> int:
        """Remove data files that no version younger than ``keep`` reads, including the files of writers that died.

        Return the number of removed files. Call this only while no other process writes to the home.
        """
        hours = int(keep / timedelta(hours=1))
        table = self._taken(name)
        return len(table.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=False, full=True))

    def scan(self, name: str) -> pl.LazyFrame:
        """Return the table, lazily.

        Raises:
            TableMissing: the table was never written.
            TableDamaged: the table's log cannot be read.
        """
        return self.newest(name).scan()

    def newest(self, name: str) -> TableVersion:
        """Return the newest version of the table, for which the table is opened once.

        Raises:
            TableMissing: the table was never written.
            TableDamaged: the table's log cannot be read.
        """
        self.require(name)
        return self._open(name).version

    def read(self, name: str, partition: Mapping[str, PartitionValue]) -> pl.DataFrame:
        """Return one partition, without its partition columns."""
        conditions = [pl.col(column) == value for column, value in partition.items()]
        return self.scan(name).filter(*conditions).drop(list(partition)).collect()

    def partitions(self, name: str) -> list[dict[str, str]]:
        """Return the values of each partition (as text); empty for a missing table."""
        return self._open(name).table.partitions() if self.exists(name) else []

    def days(self, name: str, column: str, where: Mapping[str, PartitionValue] | None = None) -> list[date]:
        """Return the days in partition column ``column``, ascending, among partitions that match ``where``."""
        wanted = {key: _text(value) for key, value in (where or {}).items()}
        return sorted(
            {
                date.fromisoformat(values[column])
                for values in self.partitions(name)
                if all(values[key] == value for key, value in wanted.items())
            }
        )

    def files(self, name: str) -> list[str]:
        """Return the current data files (for DuckDB, which cannot load its Delta extension everywhere)."""
        return list(self._open(name).version.files)

    def files_before(self, name: str, column: str, day: date) -> list[str]:
        """Return the current data files of the partitions whose ``column`` is earlier than ``day``; none of a missing
        table."""
        early = {f"{column}={each.isoformat()}" for each in self.days(name, column) if each < day}
        return [path for path in self.files(name) if early & set(Path(path).parts)] if early else []

    def make_readable(self, name: str, partition: Mapping[str, PartitionValue]) -> None:
        """Set a damaged newest commit of a table aside if ``partition`` replaces everything that the commit wrote.

        That is so if the commit wrote this partition, or none (a vacuum).
        """
        replaced = {column: _text(value) for column, value in partition.items()}
        self.set_damaged_aside(name, lambda written: written == replaced)

    def set_damaged_aside(self, name: str, replaced: Callable[[Mapping[str, str]], bool]) -> None:
        """Take a damaged newest commit out of a table if the caller replaces the partition that the commit wrote.

        A commit that wrote no partition (a vacuum) is taken out, too. The table is then as it was before the commit.
        Nothing happens where another commit is damaged, too: opening the table then raises.

        Args:
            replaced: whether the caller replaces a partition (column -> value, as text).
        """
        if newest_commit_fault(self.path(name)) is None:
            return
        damaged = damaged_commits(self.path(name))
        if len(damaged) != 1 or not damaged[0].newest:
            return
        commit = damaged[0]
        if commit.partition is not None and (not commit.partition or replaced(commit.partition)):
            set_aside(commit)
            logger.warning(
                "%s was damaged (%s), and is set aside: %s", commit.path, commit.why, spelt(commit.partition)
            )

    def _files(self, name: str, table: DeltaTable) -> list[str]:
        # A URI spells what is below the table as the disk does, but percent-encodes the table's own path.
        depth = len(table.metadata().partition_columns) + 1
        # In order: the files of a partition that parts of a stage wrote are numbered, and the parts are in order.
        return sorted(str(self.path(name).joinpath(*uri.split("/")[-depth:])) for uri in table.file_uris())

    def _taken(self, name: str) -> DeltaTable:
        """Return the table at its newest version, for a change: the object is not held meanwhile."""
        table = self._open(name).table
        self._held.pop(name, None)
        return table

    def _open(self, name: str) -> _Held:
        """Return the table at its newest version.

        Raises:
            TableDamaged: the table's log cannot be read.
        """
        path = self.path(name)
        stamp, held = log_stamp(path), self._held.get(name)
        if held is not None and held.stamp == stamp:
            return held
        if newest_commit_fault(path) is not None:
            raise TableDamaged("\n".join(told_damaged(commit, name) for commit in damaged_commits(path)))
        try:
            return self._hold(name, stamp, DeltaTable(str(path)))
        except (DeltaError, OSError) as error:
            raise TableDamaged(_what_is_damaged(path, error)) from error

    def _hold(self, name: str, stamp: LogStamp, table: DeltaTable) -> _Held:
        # Not over the files of scan_delta: it cannot open a table whose path has a space in it.
        schema, columns = pl.scan_delta(table).collect_schema(), table.metadata().partition_columns
        held = _Held(stamp, table, TableVersion(schema, columns, self._files(name, table)))
        self._held[name] = held
        return held


def _what_is_damaged(table: Path, error: Exception) -> str:
    damaged = damaged_commits(table)
    if not damaged:
        gaps = missing_versions(table)
        said = f"commits {gaps} are missing" if gaps else str(error).splitlines()[0]
        return f"table {table.name!r}: {table / LOG} cannot be read ({said}): {BACKUP}."
    return "\n".join(told_damaged(commit, table.name) for commit in damaged)


def told_damaged(commit: DamagedCommit, table: str) -> str:
    """Return one sentence about a damaged commit: the file, the fault, the remedy."""
    healed = remedy_of_commit(table, commit.partition if commit.newest else None)
    wrote = f", which wrote {spelt(commit.partition)}," if commit.partition else ""
    return f"table {table!r}: the commit {commit.path}{wrote} is damaged ({commit.why}): {healed}."


def vectors(column: pl.Series) -> NDArray[np.float32]:
    """Return a ``List(Float32)`` column of equal lengths as a matrix [rows, width]; zero rows give [0, 0]."""
    if not len(column):
        return np.zeros((0, 0), np.float32)
    flat = column.explode().cast(pl.Float32).to_numpy()
    return np.ascontiguousarray(flat.reshape(len(column), -1))


def vector_column(name: str, matrix: NDArray[np.float32]) -> pl.Series:
    """Return a matrix [rows, width] as a ``List(Float32)`` column."""
    return pl.Series(name, np.ascontiguousarray(matrix, np.float32)).cast(pl.List(pl.Float32))


def _add_action(table: Path, file: DataFile, values: Mapping[str, str]) -> AddAction:
    path = file.path.relative_to(table).as_posix()
    return AddAction(path, file.bytes, values, int(time.time() * 1000), True, json.dumps({"numRecords": file.rows}))


def _predicate(partition: Mapping[str, PartitionValue]) -> str:
    return " AND ".join(f"{column} = '{_text(value)}'" for column, value in partition.items())


def _text(value: PartitionValue) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)

"""Data files that the parts of a stage write, each part where it runs, before the run makes the one commit.

The rows of a part never leave the process that makes them; the answer of a part is one row about its file. If a stage
fails, no commit names its files, and they are removed as the files of every writer that died (``Tables.vacuum``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.engine import Part, Stage, StageRun, Work
from warehouse.storage_format import COMPRESSION, flat_columns, group_rows, repeating_columns, storable
from warehouse.tables import DataFile, PartitionValue, Tables

logger = logging.getLogger(__name__)
GROUP_BYTES = 128 << 20  # of the rows that wait for their row group
TELL_SECONDS = 10.0  # between two lines of progress
FILE_SCHEMA = {"part": pl.Int64(), "path": pl.String(), "rows": pl.Int64(), "bytes": pl.Int64()}


def write_parts(
    tables: Tables, name: str, partition: Mapping[str, PartitionValue], *, schema: pl.Schema, run: StageRun[Part]
) -> int:
    """Replace one partition by the rows of a stage, in one atomic commit. Return the number of rows.

    Args:
        partition: as in ``Tables.write``.
        schema: of the rows, without the partition columns.
    """
    directory = tables.partition_directory(name, partition)
    numbered = list(enumerate(run.parts))
    files: list[DataFile] = []
    progress = _Progress(name, len(numbered))
    try:
        with closing(run.engine.run(_WrittenParts(run.stage, directory, schema), numbered)) as answers:
            for number, path, rows, size in (row for answer in answers for row in answer.iter_rows()):
                files.append(DataFile(Path(path), rows, size))
                progress.tell(number + 1, sum(file.rows for file in files))
    except BaseException:
        for file in files:
            file.path.unlink(missing_ok=True)
        raise
    # What fails from here on may fail after the commit, so that the files have to stay.
    tables.commit_files(name, schema, files, partition)
    return sum(file.rows for file in files)


@dataclass(frozen=True)
class _WrittenParts(Generic[Part]):
    """The stage that writes the rows of another stage: at most one file a part, and a row of ``FILE_SCHEMA``."""

    stage: Stage[Part]
    directory: Path
    schema: pl.Schema

    def __call__(self) -> Work[tuple[int, Part]]:
        return partial(_written, self.stage(), self.directory, self.schema)


@dataclass
class _Progress:
    """Logs how far a stage is, now and then. Dagster shows the lines in the log of its run (dagster.yaml)."""

    table: str
    parts: int
    told: float = field(default_factory=time.monotonic)

    def tell(self, done: int, rows: int) -> None:
        if time.monotonic() - self.told >= TELL_SECONDS:
            self.told = time.monotonic()
            logger.info("%s: %d of %d parts done, %s rows", self.table, done, self.parts, f"{rows:,}")


def _written(
    work: Work[Part], directory: Path, schema: pl.Schema, numbered: tuple[int, Part]
) -> Iterator[pl.DataFrame]:
    """Write the rows of a part to a file, if there are any. The names of the files are in the order of the parts."""
    number, part = numbered
    groups = _row_groups(schema, work(part))
    first = next(groups, None)
    if first is None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    path, rows = directory / f"part-{number:05}-{uuid4()}.{COMPRESSION}.parquet", 0
    try:
        repeating, flat = repeating_columns(first.schema), flat_columns(first.schema)
        with pq.ParquetWriter(
            path, first.schema, compression=COMPRESSION, use_dictionary=repeating, write_statistics=flat
        ) as writer:
            while first is not None:
                writer.write_table(first, row_group_size=group_rows(first.schema))
                rows += first.num_rows
                first = next(groups, None)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    yield pl.DataFrame([(number, str(path), rows, path.stat().st_size)], schema=FILE_SCHEMA, orient="row")


def _row_groups(schema: pl.Schema, batches: Iterable[pl.DataFrame]) -> Iterator[pa.Table]:
    """Yield the rows in tables of about a row group each."""
    stored = storable(pl.DataFrame(schema=schema)).to_arrow().schema
    held: list[pl.DataFrame] = []
    rows = size = 0

    def joined() -> pa.Table:
        return pl.concat(held).to_arrow().cast(stored)

    for batch in batches:
        if batch.is_empty():
            continue
        held.append(storable(batch.select(schema.names()).cast(schema)))
        rows, size = rows + len(batch), size + int(batch.estimated_size())
        if rows >= group_rows(stored) or size >= GROUP_BYTES:
            yield joined()
            held, rows, size = [], 0, 0
    if held:
        yield joined()

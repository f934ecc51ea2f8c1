"""The index of a large catalogue, whose shards the parts of a stage fill where they run.

A part reads its own rows of the stored embeddings and writes a file into the directory of the index, so that only the
name of the file comes back. The run merges the files. Neither holds all embeddings beside the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.engine import Engine, Work
from warehouse.tables import TableVersion, vectors

if TYPE_CHECKING:
    from ml.retrieval.index import ItemIndex

STAGED = ".shard-"  # begins the names of the files that are merged; retention removes what a killed run leaves
STAGED_END = ".tmp"


@dataclass(frozen=True)
class Shard:
    """A range of the rows of an index: the items from one id to another, in the order of the ids."""

    rows: range
    first: str
    last: str


@dataclass(frozen=True)
class StoredEmbeddings:
    """The item embeddings of one day, in the table that holds them. Another process reads the same files.

    Attributes:
        table: as it was when it was opened.
        model_version: of the partition.
        day: of the partition.
    """

    table: TableVersion
    model_version: str
    day: date

    def item_ids(self) -> pl.Series:
        """Return the ids of the items, ascending: item i of an index is item i here."""
        return self._rows().select("item_id").collect()["item_id"].sort()

    def of(self, shard: Shard) -> NDArray[np.float32]:
        """Return the embeddings [rows, width] of a shard, in the order of the item ids."""
        mine = self._rows().filter(pl.col("item_id").is_between(pl.lit(shard.first), pl.lit(shard.last)))
        return vectors(mine.select("item_id", "embedding").collect().sort("item_id")["embedding"])

    def _rows(self) -> pl.LazyFrame:
        partition = (pl.col("model_version") == self.model_version) & (pl.col("day") == self.day)
        return self.table.scan().filter(partition)


def shards_of(item_ids: pl.Series, shard_items: int) -> list[Shard]:
    """Return the shards of items whose ids ascend."""
    from ml.retrieval.sharded_index import shard_ranges

    ranges = shard_ranges(len(item_ids), shard_items)
    return [Shard(rows, item_ids[rows.start], item_ids[rows.stop - 1]) for rows in ranges]


def build_sharded(engine: Engine, stored: StoredEmbeddings, shards: list[Shard], *, directory: Path) -> ItemIndex:
    """Return the IVF index of all stored embeddings, whose shards the engine fills. The shards do not change the index.

    Args:
        directory: where the files of the shards lie meanwhile: on a file system that every part sees.

    Raises:
        ValueError: no item, or a number that is not finite.
    """
    from ml.retrieval.index import ItemIndex
    from ml.retrieval.sharded_index import merged_index, trained_index, write_empty

    items = shards[-1].rows.stop if shards else 0
    directory.mkdir(parents=True, exist_ok=True)
    try:
        empty = trained_index(_sample(stored, shards, items), items)
        file = directory / f"{STAGED}none-{uuid4()}{STAGED_END}"
        write_empty(empty, file)
        with closing(engine.run(partial(_filling, stored, file), shards)) as answers:
            files = [Path(path) for answer in answers for path in answer["path"]]
        return ItemIndex.of(merged_index(empty, files), np.arange(items))
    finally:
        for staged in directory.glob(f"{STAGED}*{STAGED_END}"):
            staged.unlink(missing_ok=True)
        with suppress(OSError):  # the index of before is there, or a part that was cancelled has just ended
            directory.rmdir()


def _sample(stored: StoredEmbeddings, shards: list[Shard], items: int) -> NDArray[np.float32]:
    """Return the embeddings of ``sample_rows``. All embeddings are read, a shard at a time, and checked."""
    from ml.retrieval.index import finite_rows, require_finite
    from ml.retrieval.sharded_index import sample_rows

    if not items:
        raise ValueError("an index needs embeddings [items, width] of at least one item")
    drawn = sample_rows(items)
    found: list[NDArray[np.float32]] = []
    finite: list[NDArray[np.bool_]] = []
    for shard in shards:
        embeddings, rows = stored.of(shard), shard.rows
        finite.append(finite_rows(embeddings))
        found.append(embeddings[drawn[slice(*np.searchsorted(drawn, [rows.start, rows.stop]))] - rows.start])
    require_finite(np.concatenate(finite))
    return np.concatenate(found)


def _filling(stored: StoredEmbeddings, empty: Path) -> Work[Shard]:
    """Return the function from a shard to the path of the file that it writes."""
    from ml.retrieval.sharded_index import write_shard

    def filled(shard: Shard) -> Iterator[pl.DataFrame]:
        # A part whose process has died runs again: what the dead one wrote has another name.
        file = empty.with_name(f"{STAGED}{shard.rows.start:010}-{uuid4()}{STAGED_END}")
        write_shard(empty, stored.of(shard), first=shard.rows.start, file=file)
        yield pl.DataFrame({"path": [str(file)]})

    return filled

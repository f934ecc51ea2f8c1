"""``adseq export candidates``: everybody's top items and advertisers in a file, for teams that take them in batch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from assets import advertising
from assets.deployment import serving
from assets.encoding import snapshot_embeddings
from assets.period import EVENT_COLUMNS
from assets.resources import SettingsResource
from assets.tracking import tracking_of
from ml.index import LoadedIndex, load_index, search_index
from ml.retrieval import Ragged
from ml.sequences import row_numbers
from pipelines.failures import RunRefused
from warehouse.catalogue import events_as_of, items_as_of
from warehouse.identity import external_ids
from warehouse.states import candidates_snapshot

BATCH_USERS = 10_000
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("kind", pa.string()),  # item or advertiser
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("advertiser_id", pa.string()),
        ("score", pa.float32()),
    ]
)


class Writer(Protocol):
    """A file that rows are appended to."""

    def write(self, rows: pl.DataFrame) -> None: ...


def export_candidates(settings: SettingsResource, out: Path, count: int, console: Console) -> None:
    """Write, as of the newest day, each user's ``count`` best items and as many advertisers, best first.

    Items are those of the home feed, without a context; of a user's own history only where the manifest says that
    repeats count. The file appears whole or not at all.

    Raises:
        RunRefused: no day has run yet, or the file's name says no format.
    """
    days = settings.tables.days("item_embeddings", "day")
    if not days:
        raise RunRefused(f"{settings.home.root} has no day with an index yet: adseq run")
    day = days[-1]
    version = serving(settings.tables, settings.home, day, tracking_of(settings).champion())
    users, embeddings = snapshot_embeddings(settings, version, day)
    index = load_index(settings.home.indexes / version.name / day.isoformat())
    own, lists = _own_items(settings, day, users, index), _lists(settings, day)
    advertiser_of = items_as_of(settings.tables, settings.landing, day).select("item_id", "advertiser_id")
    rows = 0
    with _writer(out) as writer, Progress(console=console, transient=True) as progress:
        task = progress.add_task("users", total=len(users))
        for begin in range(0, len(users), BATCH_USERS):
            some = users.slice(begin, BATCH_USERS)
            found = search_index(
                index.index, embeddings[begin : begin + len(some)], count, own.slice(begin, begin + len(some))
            )
            items = _items(some, found.items, found.scores, index).join(advertiser_of, on="item_id", how="left")
            advertisers = _advertisers(some, lists, count)
            both = pl.concat([items.select(SCHEMA.names), advertisers.select(SCHEMA.names)])
            named = both.with_columns(external_ids(settings.tables, both["user_id"]).alias("user_id"))
            writer.write(named.sort("user_id", "kind", "rank"))
            rows += named.height
            progress.advance(task, len(some))
    console.print(
        f"{rows:,} rows of {len(users):,} users, {version.name} as of the end of {day}, in {out}", highlight=False
    )


def _own_items(settings: SettingsResource, day: date, users: pl.Series, index: LoadedIndex) -> Ragged:
    """Index rows of the items of each user's history; none where repeats count."""
    nothing = np.zeros(0, np.int64)
    if settings.landing.manifest.repeats_count:
        return Ragged.from_pairs(nothing, nothing, len(users))
    events = events_as_of(settings.tables, settings.landing, day, EVENT_COLUMNS)
    pairs = events.select("user_id", "item_id").drop_nulls().unique()
    user = row_numbers(users, pairs["user_id"])
    item = row_numbers(pl.Series(index.item_ids, dtype=pl.String), pairs["item_id"])
    known = (user >= 0) & (item >= 0)
    return Ragged.from_pairs(user[known], item[known], len(users))


def _lists(settings: SettingsResource, day: date) -> pl.DataFrame | None:
    version = advertising.serving(settings.tables, settings.home, day)
    return None if version is None else candidates_snapshot(settings.tables, version.name, day)


def _items(users: pl.Series, rows: NDArray[np.int64], scores: NDArray[np.float32], index: LoadedIndex) -> pl.DataFrame:
    """One row a user and item [users, count]; -1 is no item."""
    depth = rows.shape[1]
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(users.to_numpy(), depth),
            "kind": "item",
            "rank": pl.Series(np.tile(np.arange(1, depth + 1), len(users)), dtype=pl.Int32),
            "row": rows.ravel(),
            "score": pl.Series(scores.ravel(), dtype=pl.Float32),
        }
    ).filter(pl.col("row") >= 0)
    return frame.with_columns(item_id=pl.Series(index.item_ids, dtype=pl.String).gather(frame["row"])).drop("row")


def _advertisers(users: pl.Series, lists: pl.DataFrame | None, count: int) -> pl.DataFrame:
    schema = pl.Schema(SCHEMA)
    if lists is None:
        return pl.DataFrame(schema=schema)
    mine = lists.filter(pl.col("user_id").is_in(users.implode())).with_columns(
        pl.col("advertiser_ids", "scores").list.head(count)
    )
    flat = mine.select("user_id", advertiser_id="advertiser_ids", score="scores").explode("advertiser_id", "score")
    flat = flat.drop_nulls("advertiser_id")
    ranked = flat.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id"))
    return ranked.with_columns(kind=pl.lit("advertiser"), item_id=pl.lit(None, pl.String)).cast(schema)


@contextmanager
def _writer(out: Path) -> Iterator[Writer]:
    """A file beside its place, renamed when all is written."""
    makers: dict[str, type[_Parquet] | type[_Csv]] = {".parquet": _Parquet, ".csv": _Csv}
    if out.suffix not in makers:
        raise RunRefused(f"--out {out}: name it .parquet or .csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with makers[out.suffix](temporary) as writer:
            yield writer
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetWriter(path, SCHEMA)

    def write(self, rows: pl.DataFrame) -> None:
        self.file.write_table(rows.to_arrow().cast(SCHEMA))

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class _Csv:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", newline="")
        csv.writer(self.file).writerow(SCHEMA.names)

    def write(self, rows: pl.DataFrame) -> None:
        self.file.write(rows.write_csv(include_header=False))

    def __enter__(self) -> _Csv:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

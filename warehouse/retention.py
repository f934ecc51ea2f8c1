"""The retention of a home: whole catalogues, one a day, are removed after some time, and made anew when needed.

What says what happened (events, sequences, states, candidates, measurements) is never removed here, except the features
of scored candidates, which are most of their table: a day that runs again computes its own anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from settings import DataSettings
from warehouse.home import Home
from warehouse.tables import Tables

# Where files are written beside their place. Whoever sweeps holds the home's lock: nobody else is writing.
_PLACES = ("online/", "served/", "served/*/", "indexes/*/*/", "models/*/", "relevance/", "tables/", "logs/")
_UNFINISHED = (".*.tmp*", *(f"{place}.*.tmp*" for place in _PLACES))
CATALOGUES = ("item_features", "item_embeddings", "advertiser_embeddings")
CANDIDATES, FEATURES = "scored_candidates", "features"


@dataclass(frozen=True)
class Removed:
    """The numbers of removed things of a sweep."""

    partitions: int
    indexes: int
    catalogues: int
    files: int  # of older versions of tables
    unfinished: int  # files that killed processes have left
    thinned: int = 0  # days whose candidates lost their features


def sweep(
    home: Home, tables: Tables, day: date, *, keep: DataSettings, watched_days: int, served: Collection[Path]
) -> Removed:
    """Remove old catalogues, old features of candidates, data files of old table versions, and unfinished files.

    A catalogue is removed if its day lies ``keep_days`` or more before ``day``, and so are features of candidates that
    monitoring does not need; a data file, if its version was replaced ``keep_versions_days`` ago.

    Args:
        day: the newest day.
        watched_days: days before ``day`` against whose candidates monitoring holds the day.
        served: indexes and catalogue files that answer requests, whatever their age; relative to the home.
    """
    first = day - timedelta(days=keep.keep_days - 1)
    kept = {home.root / path for path in served}
    partitions = sum(_drop_before(tables, name, first) for name in CATALOGUES)
    thinned = _thin_before(tables, min(first, day - timedelta(days=watched_days)))
    indexes = [path for path in home.indexes.glob("*/????-??-??") if path not in kept and path.name < str(first)]
    for path in indexes:
        shutil.rmtree(path)
    catalogues = [path for path in home.served.glob("*/????-??-??.parquet") if path not in kept]
    catalogues = [path for path in catalogues if path.stem < str(first)]
    for path in catalogues:
        path.unlink()
    unfinished = [path for pattern in _UNFINISHED for path in home.root.glob(pattern)]
    for path in unfinished:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    files = sum(tables.vacuum(name, timedelta(days=keep.keep_versions_days)) for name in tables.names())
    return Removed(partitions, len(indexes), len(catalogues), files, len(unfinished), thinned)


def sizes(home: Home) -> dict[str, int]:
    """Return the bytes on the disk of each part of the home; the landing zone only where it lies in the home."""
    parts = sorted(path for path in home.root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {part.name: sum(_bytes(path) for path in part.rglob("*")) for part in parts}


def _drop_before(tables: Tables, name: str, first: date) -> int:
    old = [values for values in tables.partitions(name) if values["day"] < str(first)]
    for values in old:
        tables.remove(name, values)
    return len(old)


def _thin_before(tables: Tables, first: date) -> int:
    """Empty the features of the candidates of the days before ``first``; return the number of days that had any."""
    if not tables.exists(CANDIDATES):
        return 0
    full = tables.scan(CANDIDATES).filter(pl.col("day") < first, pl.col(FEATURES).is_not_null())
    days = full.select(pl.col("day").unique()).collect()["day"].to_list()
    for day in days:
        rows = tables.read(CANDIDATES, {"day": day})
        empty = pl.lit(None, rows.schema[FEATURES]).alias(FEATURES)
        tables.write(CANDIDATES, rows.with_columns(empty), {"day": day})
    return len(days)


def _bytes(path: Path) -> int:
    """Return the size of a file's blocks in bytes; 0 for a file that has gone meanwhile.

    Blocks count rather than the length, because a file of LMDB has holes.
    """
    try:
        return path.stat().st_blocks * 512 if path.is_file() else 0
    except FileNotFoundError:
        return 0

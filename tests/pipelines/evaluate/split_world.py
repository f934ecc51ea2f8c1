"""A landing zone and two fixed splits over its log, made by hand, in the format of the scoring folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from warehouse.contracts import LandingTable
from warehouse.landing import Landing, Manifest

CUTOFF = datetime(2014, 5, 1, tzinfo=UTC)
WINDOW_DAYS, USERS, ITEMS, BRANDS = 28, 240, 130, 9
COLD = range(120, ITEMS)  # items that nobody has bought before the cut-off

TINY = {
    "FEATURES__CONTENT_DIMENSIONS": "8",
    "EXAMPLES__CUTOFFS": "4",
    "MODEL__WIDTH": "8",
    "MODEL__LAYERS": "1",
    "MODEL__HEADS": "1",
    "TRAINING__EPOCHS": "1",
    "TRAINING__EPOCH_EXAMPLES": "1500",
    "TRAINING__BATCH_SIZE": "128",
    "TRAINING__CORPUS_NEGATIVES": "32",
}
"""Settings of a model that trains in a second, as environment variables without their prefix."""


@dataclass(frozen=True)
class Made:
    """A landing zone and the splits over its log."""

    landing: Path
    splits: Path


def make_splits(root: Path) -> Made:
    """Purchases in baskets of like items, split in time; ids are numbers in the split's files, as the real ones are."""
    log = purchases()
    write_landing(root / "landing")
    for protocol in ("temporal", "context"):
        write_split(root / f"tiny-{protocol}", log, protocol)
    return Made(root / "landing", root)


def purchases() -> pd.DataFrame:
    """user_id, item_id, ts (seconds), ord, basket: items of a basket share their remainder by 10."""
    random = np.random.default_rng(7)
    start = CUTOFF - timedelta(days=300)
    rows = []
    for user in range(USERS):
        taste = random.integers(10)
        for day in np.sort(random.choice(300 + WINDOW_DAYS, random.integers(2, 9), replace=False)):
            known = 120 if day < 300 else ITEMS
            for item in random.choice(np.arange(taste, known, 10), random.integers(1, 5), replace=False):
                when = start + timedelta(days=int(day), seconds=int(random.integers(86_400)))
                rows.append((user, int(item) + 1000, when.timestamp(), user * 1000 + int(day)))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "ts", "basket"])
    frame = frame.sort_values(["ts", "user_id"], kind="stable").reset_index(drop=True)
    return frame.assign(ord=np.arange(len(frame)))


def write_landing(root: Path) -> None:
    """Items only, as landed before and on the one daily day; every tenth has no advertiser."""
    landing = Landing(root)
    number = pl.int_range(1000, 1000 + ITEMS, eager=True)
    items = pl.DataFrame({"item_id": number.cast(pl.String)}).with_columns(
        advertiser_id=pl.when(number % 13 != 0).then(pl.format("brand {}", number % BRANDS)),
        category=pl.format("Home > Room {}", number % 10),
        price=(number % 7 + 1).cast(pl.Float64),
    )
    landing.write(LandingTable.items, None, items)
    landing.write(LandingTable.items, CUTOFF.date(), items.head(1))
    landing.write_manifest(
        Manifest(positive_events=["checkout"], prediction_window_days=WINDOW_DAYS, repeats_count=False)
    )


def write_split(directory: Path, log: pd.DataFrame, protocol: str) -> None:
    """The five frames and the meta of the scoring folder's format."""
    train = log[log.ts < CUTOFF.timestamp()]
    window = log[(log.ts >= CUTOFF.timestamp()) & log.user_id.isin(train.user_id.unique())]
    if protocol == "temporal":
        window = window.assign(query_id=window.user_id, context_item=pd.Series(dtype="int64"))
        targets = window
    else:
        window = window.sort_values(["basket", "ord"])
        window = window.assign(query_id=window.basket, context_item=window.groupby("basket").item_id.transform("first"))
        targets = window[window.item_id != window.context_item]
    queries = window[window.query_id.isin(targets.query_id)].drop_duplicates("query_id")
    history = queries[["query_id", "user_id"]].merge(train, on="user_id")[["query_id", "item_id", "ord"]]
    targets = targets[["query_id", "item_id"]].drop_duplicates().merge(history, how="left", indicator=True)
    targets = targets[targets._merge == "left_only"][["query_id", "item_id"]]
    queries = queries[queries.query_id.isin(targets.query_id)][["query_id", "user_id", "context_item"]]
    number = np.arange(1000, 1000 + ITEMS)
    catalogue = pd.DataFrame({"item_id": number, "warm": np.isin(number, train.item_id)})
    catalogue["brand"] = [f"brand {item % BRANDS}" if item % 13 else None for item in number]
    frames = {
        "train": train[["user_id", "item_id", "ts", "ord"]],
        "queries": queries.assign(has_history=True),
        "history": history[history.query_id.isin(queries.query_id)],
        "targets": targets,
        "catalogue": catalogue,
    }
    directory.mkdir()
    for name, frame in frames.items():
        frame.reset_index(drop=True).to_parquet(directory / f"{name}.parquet")
    meta = {"cutoff": CUTOFF.replace(tzinfo=None).isoformat(sep=" "), "window_days": WINDOW_DAYS}
    (directory / "meta.json").write_text(json.dumps(meta))

"""Retailrocket's shop -> landing zone: views, carts and transactions. Nothing says who sells or makes an item.

Properties of items are dated: a category or availability that is stated on one of the daily days arrives on that day.
Item properties other than these two are hashed words, and are left out.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import CATEGORY_SEPARATOR
from warehouse.importers.landing_writer import ImportSummary, Log, require_files, write_log
from warehouse.landing import Landing, Manifest

FILES = ("events.csv", "item_properties_part1.csv", "item_properties_part2.csv", "category_tree.csv")
NAMES = {"view": "page_visit", "addtocart": "add_to_cart", "transaction": "checkout"}
DEEPEST = 20  # levels of the category tree; a tree with a circle would have no end


def import_retailrocket(source: Path, landing: Landing, daily_days: int = 3) -> ImportSummary:
    """Write ``source`` (events.csv, item_properties_part1.csv and 2, category_tree.csv) into an empty landing zone.

    Raises:
        SourceError: a source file is missing, the log has too few days, or the landing zone is not empty.
    """
    require_files(source, FILES, "Retailrocket")
    events = _events(pl.read_csv(source / "events.csv", infer_schema=False))
    users = events.select("user_id").unique().sort("user_id")
    manifest = Manifest(name="Retailrocket", positive_events=["checkout", "add_to_cart"], prediction_window_days=28)
    return write_log(Log(events, _items(source, events), users, manifest), landing, daily_days)


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        event_id=pl.int_range(pl.len()).cast(pl.String).str.zfill(9),  # the order of the source breaks ties
        user_id="visitorid",
        event_time=_time("timestamp"),
        event_name=pl.col("event").replace(NAMES),
        advertiser_id=pl.lit(UNKNOWN_ADVERTISER),
        item_id="itemid",
    )


def _items(source: Path, events: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each item and each day on which a fact was stated of the item: all facts known by that day."""
    stated = pl.concat(
        [
            pl.scan_csv(source / name, infer_schema=False)
            .filter(pl.col("property").is_in(["categoryid", "available"]))
            .select("itemid", "property", "value", day=_time("timestamp").dt.date())
            for name in FILES[1:3]
        ]
    ).collect()
    by_day = stated.sort("day").unique(["itemid", "property", "day"], keep="last", maintain_order=True)
    wide = by_day.pivot("property", index=["itemid", "day"], values="value").sort("itemid", "day")
    missing = [pl.lit(None, pl.String).alias(name) for name in ("categoryid", "available") if name not in wide.columns]
    known = wide.with_columns(*missing).with_columns(pl.col("categoryid", "available").forward_fill().over("itemid"))
    items = known.select(
        "day",
        item_id="itemid",
        advertiser_id=pl.lit(UNKNOWN_ADVERTISER),
        content_type=pl.lit("shopping"),
        category=pl.col("categoryid").replace_strict(_paths(source), default=None, return_dtype=pl.String),
        availability=pl.col("available").replace_strict({"1": "in stock", "0": "out of stock"}, default=None),
    )
    unstated = events.select("item_id").unique().join(items, on="item_id", how="anti")
    # Of an item that is stated several times in the history, its newest version counts: the history is one arrival.
    both = pl.concat([items, unstated.sort("item_id")], how="diagonal")
    return both.sort("day", descending=True, nulls_last=True)


def _paths(source: Path) -> dict[str, str]:
    """Return the path from the root of each category."""
    tree = pl.read_csv(source / "category_tree.csv", infer_schema=False)
    parent = dict(tree.select("categoryid", "parentid").iter_rows())

    def path(category: str) -> str:
        nodes = [category]
        while len(nodes) < DEEPEST and parent.get(nodes[-1]):
            nodes.append(str(parent[nodes[-1]]))
        return CATEGORY_SEPARATOR.join(f"c{node}" for node in reversed(nodes))

    return {category: path(category) for category in parent}


def _time(column: str) -> pl.Expr:
    return pl.from_epoch(pl.col(column).cast(pl.Int64), "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")

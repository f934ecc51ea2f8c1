"""Amazon reviews (McAuley et al.) -> landing zone: a review stands for a checkout, the brand for the advertiser.

The log's times are whole days, so one user's events of a day tie; ``event_id`` (user and position within the user)
breaks the ties in the order of the source.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import CATEGORY_SEPARATOR
from warehouse.importers.landing_writer import ImportSummary, Log, require_files, write_log
from warehouse.landing import Landing, Manifest

_POSITION_DIGITS = 5


def import_amazon_reviews(source: Path, landing: Landing, daily_days: int = 3) -> ImportSummary:
    """Write ``source`` (events.parquet, items.parquet) into an empty or new landing zone.

    The last ``daily_days`` distinct days of the log become daily partitions, everything earlier the history. Items
    arrive with the history (a feed lists a product before it sells); their ``available_from`` stays null: the feed has
    no dates, so it has always listed them.

    Raises:
        SourceError: a source file is missing, the log has too few days, or the landing zone is not empty.
    """
    require_files(source, ("events.parquet", "items.parquet"), "Amazon reviews")
    items = _items(pl.read_parquet(source / "items.parquet", glob=False))
    events = _events(pl.read_parquet(source / "events.parquet"), items)
    users = events.select("user_id").unique().sort("user_id")
    manifest = Manifest(
        name="Amazon reviews", positive_events=["checkout"], prediction_window_days=28, repeats_count=False
    )
    return write_log(Log(events, items, users, manifest), landing, daily_days)


def _items(items: pl.DataFrame) -> pl.DataFrame:
    path = [pl.format("c{}", pl.col(column)) for column in ("cat1_attr", "cat2_attr", "cat3_attr")]
    category = pl.concat_str(path, separator=CATEGORY_SEPARATOR, ignore_nulls=True)
    return items.select(
        "item_id",
        advertiser_id=pl.col("brand_attr").cast(pl.String).fill_null(UNKNOWN_ADVERTISER),
        content_type=pl.lit("shopping"),
        category=category.replace("", None),
    )


def _events(events: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Return the events in contract columns."""
    position = pl.col("position").cast(pl.String).str.zfill(_POSITION_DIGITS)
    event_time = pl.from_epoch("timestamp", time_unit="s").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return (
        events.join(items.select("item_id", "advertiser_id"), on="item_id", how="left", maintain_order="left")
        .sort("timestamp", "user_id", "position")
        .select(
            event_id=pl.format("{}-{}", "user_id", position),
            user_id="user_id",
            event_time=event_time,
            event_name=pl.lit("checkout"),
            advertiser_id=pl.col("advertiser_id").fill_null(UNKNOWN_ADVERTISER),
            item_id="item_id",
        )
    )

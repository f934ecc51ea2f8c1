"""Amazon reviews (McAuley et al.) -> landing zone: a review stands for a checkout, the brand for the advertiser.

The log's times are whole days, so one user's events of a day tie; ``event_id`` (user and position within the user)
breaks the ties in the order of the source.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import CATEGORY_SEPARATOR, LandingTable
from warehouse.importers.writing import ImportSummary, SourceError, require_files, staged, write_by_day
from warehouse.landing import Landing, Manifest

_POSITION_DIGITS = 5


def import_amazon_reviews(source: Path, landing: Landing, daily_days: int = 3) -> ImportSummary:
    """Write ``source`` (events.parquet, items.parquet) into an empty or new landing zone.

    The last ``daily_days`` distinct days of the log become daily partitions, everything earlier the history. Items
    arrive with the history (a feed lists a product before it sells); their ``available_from`` stays null, so that the
    catalogue takes the first event.

    Raises:
        SourceError: a source file is missing, the log has too few days, or the landing zone is not empty.
    """
    require_files(source, ("events.parquet", "items.parquet"), "Amazon reviews")
    items = _items(pl.read_parquet(source / "items.parquet"))
    events = _events(pl.read_parquet(source / "events.parquet"), items)
    days = events["day"].unique().sort().to_list()
    if not 1 <= daily_days < len(days):
        raise SourceError(
            f"{source / 'events.parquet'} has {len(days)} distinct days; {daily_days} daily partitions need at least "
            "one more for the history. Choose between 1 and the number of days less one."
        )
    daily = days[-daily_days:]
    users = events.group_by("user_id").agg(pl.col("day").min()).sort("user_id")
    with staged(landing) as zone:
        write_by_day(zone, LandingTable.events, events, daily)
        write_by_day(zone, LandingTable.users, users, daily)
        zone.write(LandingTable.items, None, items)
        zone.write_manifest(
            Manifest(
                name="Amazon reviews",
                positive_events=["checkout"],
                prediction_window_days=28,
                repeats_count=False,
            )
        )
    return ImportSummary(
        events=events.height,
        users=users.height,
        items=items.height,
        advertisers=items["advertiser_id"].filter(items["advertiser_id"] != UNKNOWN_ADVERTISER).n_unique(),
        impressions=0,
        first_time=events["event_time"].min(),  # type: ignore[arg-type]
        last_time=events["event_time"].max(),  # type: ignore[arg-type]
        history_until=daily[0] - timedelta(days=1),
        days=tuple(daily),
        left_out=0,
    )


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
    """Events in contract columns, plus ``day``."""
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
            day=event_time.dt.date(),
        )
    )

"""dunnhumby's Complete Journey -> landing zone: a household is a user, a manufacturer an advertiser, a line of a basket
a checkout, a redeemed coupon a ``custom`` event of its manufacturer.

The ads and the impressions are made in ``complete_journey_campaigns``.
Times of the tills have no zone and are taken as UTC. An age band becomes its middle.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import CATEGORY_SEPARATOR
from warehouse.importers import complete_journey_campaigns
from warehouse.importers.landing_writer import ImportSummary, Log, require_files, write_log
from warehouse.landing import Landing, Manifest

FILES = (
    "transactions_sample.parquet",
    "products.parquet",
    "demographics.parquet",
    "coupons.parquet",
    "coupon_redemptions.parquet",
    *complete_journey_campaigns.FILES,
)
AGES = {"19-24": 22, "25-34": 30, "35-44": 40, "45-54": 50, "55-64": 60, "65+": 70}


def import_complete_journey(source: Path, landing: Landing, daily_days: int = 3) -> ImportSummary:
    """Write ``source`` into an empty or new landing zone; an item may be bought repeatedly.

    Raises:
        SourceError: a source file is missing, the log has too few days, or the landing zone is not empty.
    """
    require_files(source, FILES, "the Complete Journey")
    products = pl.read_parquet(source / "products.parquet", glob=False).with_columns(
        pl.col("product_id").cast(pl.String)
    )
    maker = products.select("product_id", advertiser_id=pl.col("manufacturer_id").cast(pl.String))
    events = pl.concat([_baskets(source, maker), _redemptions(source, maker)], how="diagonal")
    manifest = Manifest(name="Complete Journey", positive_events=["checkout"], prediction_window_days=28)
    campaigns = complete_journey_campaigns.read_campaigns(source, events, maker)
    log = Log(
        events,
        _items(products),
        _users(source, events),
        manifest,
        ads=campaigns.ads,
        impressions=campaigns.impressions,
        requests_left_out=campaigns.requests_left_out,
    )
    return write_log(log, landing, daily_days)


def _baskets(source: Path, maker: pl.DataFrame) -> pl.DataFrame:
    lines = pl.read_parquet(source / "transactions_sample.parquet", glob=False).with_columns(
        pl.col("household_id", "basket_id", "product_id").cast(pl.String)
    )
    number = pl.int_range(pl.len()).over("basket_id", "product_id")
    return lines.join(maker, on="product_id", how="left", maintain_order="left").select(
        event_id=pl.format("{}-{}-{}", "basket_id", "product_id", number),
        user_id="household_id",
        event_time=pl.col("transaction_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        event_name=pl.lit("checkout"),
        advertiser_id=pl.col("advertiser_id").fill_null(UNKNOWN_ADVERTISER),
        item_id="product_id",
        value="sales_value",
        currency=pl.lit("USD"),
    )


def _redemptions(source: Path, maker: pl.DataFrame) -> pl.DataFrame:
    """Return the redemptions of coupons as events.

    A coupon is for many products, as a rule of one manufacturer: the event names the commonest manufacturer.
    """
    coupons = pl.read_parquet(source / "coupons.parquet", glob=False).with_columns(pl.col("product_id").cast(pl.String))
    counted = coupons.join(maker, on="product_id").group_by("coupon_upc", "advertiser_id").len()
    of_coupon = counted.sort("len", "advertiser_id", descending=[True, False]).unique("coupon_upc", keep="first")
    redeemed = pl.read_parquet(source / "coupon_redemptions.parquet", glob=False)
    number = pl.int_range(pl.len()).over("household_id", "coupon_upc", "redemption_date")
    return redeemed.join(of_coupon, on="coupon_upc", how="left", maintain_order="left").select(
        event_id=pl.format(
            "coupon-{}-{}-{}-{}", "household_id", "coupon_upc", pl.col("redemption_date").dt.date(), number
        ),
        user_id=pl.col("household_id").cast(pl.String),
        event_time=pl.col("redemption_date").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        event_name=pl.lit("custom"),
        advertiser_id=pl.col("advertiser_id").fill_null(UNKNOWN_ADVERTISER),
    )


def _items(products: pl.DataFrame) -> pl.DataFrame:
    path = pl.concat_str(
        "department", "product_category", "product_type", separator=CATEGORY_SEPARATOR, ignore_nulls=True
    )
    named = pl.concat_str(
        pl.col("product_type").fill_null(pl.col("product_category")).str.to_titlecase(),
        "package_size",
        separator=", ",
        ignore_nulls=True,
    )
    return products.select(
        item_id="product_id",
        advertiser_id=pl.col("manufacturer_id").cast(pl.String).fill_null(UNKNOWN_ADVERTISER),
        title=named.replace("", None),
        content_type=pl.lit("shopping"),
        category=path.replace("", None),
    )


def _users(source: Path, events: pl.DataFrame) -> pl.DataFrame:
    known = pl.read_parquet(source / "demographics.parquet", glob=False).select(
        user_id=pl.col("household_id").cast(pl.String),
        age=pl.col("age").cast(pl.String).replace_strict(AGES, default=None, return_dtype=pl.Int32),
    )
    return events.select("user_id").unique().join(known, on="user_id", how="left").sort("user_id")

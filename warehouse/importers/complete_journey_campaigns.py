"""The campaigns of dunnhumby's Complete Journey: a coupon of a campaign for a product is an ad, and a coupon that was
mailed to a household is an impression.

The log does not name the coupons that a household of a Type A campaign received: the retailer chose 16 of the
campaign's coupons for each household. The impressions are those of the other types, whose households received every
coupon. The redeemed coupons of Type A stay events: an impression of theirs would be in the log because of its outcome.

An impression arrives on the last day of its campaign, whether the coupon was redeemed or not. A share of redeemed
coupons is therefore never counted while coupons can still be redeemed. A campaign that began before the log or ends
after the log has no impressions: some of its outcomes are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.surfaces import Surface

FILES = ("campaigns.parquet", "campaign_descriptions.parquet")
CHOSEN_BY_HOUSEHOLD = "TypeA"
CHOSEN, OUTSIDE = (
    "of Type A campaigns: which coupons a household received is unknown",
    "of campaigns that began before the log or end after the log: some outcomes are unknown",
)


@dataclass(frozen=True)
class Campaigns:
    """The campaigns as landing tables.

    Attributes:
        ads, impressions: contract columns and ``day``, the day of the arrival.
        requests_left_out: mailings (a household's share of a campaign) without impressions, by the reason in words.
    """

    ads: pl.DataFrame
    impressions: pl.DataFrame
    requests_left_out: Mapping[str, int]


def read_campaigns(source: Path, events: pl.DataFrame, maker: pl.DataFrame) -> Campaigns:
    """Return the campaigns that began by the last day of the log.

    Args:
        events: the log in contract columns; the first and the last event say when the log begins and ends.
        maker: product_id, advertiser_id of each product of the catalogue. An ad of any other product is left out.
    """
    day = pl.col("event_time").dt.date()
    first, last = events.select(first=day.min(), last=day.max()).row(0)
    described = _described(source).filter(pl.col("starts") <= last)
    covered = (
        _with_text_ids(source / "coupons.parquet")
        .unique()
        .join(described, on="campaign_id")
        .join(maker, on="product_id")
        .with_columns(ad_id=pl.format("{}-{}-{}", "campaign_id", "coupon_upc", "product_id"))
    )
    mailed = _with_text_ids(source / "campaigns.parquet").unique().join(described, on="campaign_id")
    chosen = pl.col("type").str.replace_all(" ", "") == CHOSEN_BY_HOUSEHOLD
    inside = (pl.col("starts") >= first) & (pl.col("last_day") <= last)
    left_out = {
        CHOSEN: mailed.filter(chosen).height,
        OUTSIDE: mailed.filter(~chosen & ~inside).height,
    }
    known = mailed.filter(~chosen & inside)
    redeemed = _with_text_ids(source / "coupon_redemptions.parquet")
    return Campaigns(_ads(covered), _impressions(known, _products(covered, events), redeemed), left_out)


def _described(source: Path) -> pl.DataFrame:
    """Return campaign_id, type, starts, last_day: dates, both of the campaign."""
    return _with_text_ids(source / "campaign_descriptions.parquet").select(
        "campaign_id",
        type=pl.col("campaign_type").cast(pl.String),
        starts=pl.col("start_date").cast(pl.Date),
        last_day=pl.col("end_date").cast(pl.Date),
    )


def _ads(covered: pl.DataFrame) -> pl.DataFrame:
    return covered.select(
        "ad_id",
        "campaign_id",
        item_id="product_id",
        advertiser_id=pl.col("advertiser_id").fill_null(UNKNOWN_ADVERTISER),
        starts=_midnight(pl.col("starts")),
        ends=_midnight(pl.col("last_day").dt.offset_by("1d")),
        status=pl.lit("active"),
        day="starts",
    ).sort("ad_id")


def _products(covered: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return the one product that stands for a coupon: the most bought before the campaign, then the smallest id."""
    bought = events.filter(event_name="checkout").select("event_time", product_id="item_id")
    counted = (
        covered.select("campaign_id", "product_id", "starts")
        .unique()
        .join(bought, on="product_id")
        .filter(pl.col("event_time") < _midnight(pl.col("starts")))
        .group_by("campaign_id", "product_id")
        .agg(lines=pl.len())
    )
    return (
        covered.join(counted, on=["campaign_id", "product_id"], how="left")
        .sort(pl.col("lines").fill_null(0), "product_id", descending=[True, False])
        .unique(["campaign_id", "coupon_upc"], keep="first", maintain_order=True)
        .select("campaign_id", "coupon_upc", "product_id", "ad_id")
    )


def _impressions(mailed: pl.DataFrame, products: pl.DataFrame, redeemed: pl.DataFrame) -> pl.DataFrame:
    """Return an impression a household and coupon; each is a request of its own, since coupons do not compete."""
    key = ["household_id", "campaign_id", "coupon_upc"]
    outcome = redeemed.select(*key, redeemed=pl.lit(True)).unique()
    return (
        mailed.join(products, on="campaign_id")
        .join(outcome, on=key, how="left")
        .select(
            request_id=pl.format("{}-{}-{}", "campaign_id", "household_id", "coupon_upc"),
            request_time=_midnight(pl.col("starts")),
            user_id="household_id",
            surface=pl.lit(Surface.home_feed.value),
            item_id="product_id",
            source="type",
            stage=pl.when("redeemed").then(pl.lit("converted")).otherwise(pl.lit("impressed")),
            ad_id="ad_id",
            day="last_day",
        )
        .sort("request_id")
    )


def _with_text_ids(path: Path) -> pl.DataFrame:
    frame = pl.read_parquet(path, glob=False)
    return frame.with_columns(
        pl.col(name).cast(pl.String) for name in frame.columns if name.endswith("_id") or name == "coupon_upc"
    )


def _midnight(day: pl.Expr) -> pl.Expr:
    """Return the beginning of a day, in UTC as the tills are taken."""
    return day.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")

"""Hand-made shops for the tests of the advertiser model."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import polars as pl

from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
    advertiser_data,
    advertiser_settings,
)
from ml.examples.period import TrainingPeriod
from tests.ml.worlds import (
    EVENT_NAMES,
    START,
    event_frame,
    instant,
    item_frame,
    rule,
    small_settings,
    user_frame,
)

NAMES = [*EVENT_NAMES, "signup"]


SETTINGS = advertiser_settings(
    small_settings(advertisers={"batch_size": 128, "epoch_examples": 2000}, features={"category_buckets": 64})
)


def period_of(rows: list[tuple[str, float, str, str | None, str | None]], items: pl.DataFrame) -> AdvertiserPeriod:
    """Events as (user, day, name, item, advertiser) of 40 days; conversions count for 10 days."""
    ordered = sorted(rows, key=lambda row: (row[0], row[1]))
    events = event_frame([row[:4] for row in ordered]).with_columns(
        advertiser_id=pl.Series([row[4] for row in ordered], dtype=pl.String)
    )
    counted = dataclasses.replace(rule(10.0, repeats_count=False), event_names=("checkout", "add_to_cart", "signup"))
    users = user_frame(sorted({row[0] for row in rows}))
    return AdvertiserPeriod.of(TrainingPeriod(events, items, users, instant(40), counted, NAMES))


def data_of(known: AdvertiserPeriod) -> AdvertiserData:
    return advertiser_data(known, SETTINGS, known.period.event_names)


SHOP = item_frame(
    ["i1", "i2", "i3", "i4", "i5"],
    advertiser_id=["a", "a", "a", "b", "unknown"],
    category=["Home > Chairs", "Home > Chairs", "Home > Lamps", None, "Home"],
    price=[10.0, 40.0, None, 40.0, 1.0],
    embedding=[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]],
    # The feed is late: events show each item first.
    listed_from=[START + timedelta(days=39)] * 5,
)


VISITS: list[tuple[str, float, str, str | None, str | None]] = [
    ("u", 1, "page_visit", "i1", "a"),
    ("u", 2, "page_visit", "i2", None),  # the item's advertiser stands in
    ("u", 3, "page_visit", "i4", "b"),
    ("u", 20, "page_visit", "i3", "a"),
    ("u", 31, "checkout", "i1", "a"),
    ("u", 32, "checkout", "i2", "a"),
    ("u", 33, "signup", None, "c"),
    ("u", 34, "add_to_cart", "i5", "unknown"),
    ("u", 35, "add_to_cart", "i4", "b"),
    ("v", 33, "signup", None, "c"),
]

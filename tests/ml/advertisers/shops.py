"""Hand-made shops for the tests of the advertiser model."""

from __future__ import annotations

import dataclasses

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
    event_frame,
    instant,
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

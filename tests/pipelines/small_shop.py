"""A shop of three items: the smallest log that every stage takes, and a catalogue smaller than every K."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from tests.assets.world import SETTINGS
from warehouse.contracts import LandingTable
from warehouse.landing import Landing, Manifest

ITEMS, USERS, EVENTS = 3, 300, 6000
FIRST, DAY = datetime(2024, 1, 1, tzinfo=UTC), date(2024, 3, 1)
SHOP_SETTINGS = SETTINGS | {
    "ADSEQ_TRAINING__EPOCH_EXAMPLES": "500",
    "ADSEQ_TRAINING__CORPUS_NEGATIVES": "32",
    "ADSEQ_ADVERTISERS__EPOCH_EXAMPLES": "500",
}
"""Settings under which a training of the shop takes seconds."""


def write_shop(landing: Landing) -> None:
    """Sixty days of history and one daily day; one advertiser; one item is sold out."""
    random = np.random.default_rng(0)
    seconds = np.sort(random.uniform(0, 61 * 86400, EVENTS))
    events = pl.DataFrame(
        {
            "event_id": [f"e{row}" for row in range(EVENTS)],
            "user_id": [f"u{user}" for user in random.integers(0, USERS, EVENTS)],
            "event_time": [FIRST + timedelta(seconds=float(each)) for each in seconds],
            "event_name": random.choice(["page_visit", "add_to_cart", "checkout"], EVENTS, p=[0.6, 0.25, 0.15]),
            "item_id": [f"i{item}" for item in random.integers(0, ITEMS, EVENTS)],
            "advertiser_id": "shop",
        }
    )
    items = {"item_id": [f"i{item}" for item in range(ITEMS)], "availability": ["InStock", "SoldOut", None]}
    landing.write(LandingTable.items, None, pl.DataFrame(items).with_columns(advertiser_id=pl.lit("shop")))
    today = pl.col("event_time") >= datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    landing.write(LandingTable.events, None, events.filter(~today))
    landing.write(LandingTable.events, DAY, events.filter(today))
    landing.write_manifest(Manifest(prediction_window_days=7.0, repeats_count=True))

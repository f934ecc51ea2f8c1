"""A synthetic event log of any size in a landing zone: what is measured by the number of events and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from warehouse.contracts import LandingTable
from warehouse.landing import Landing, Manifest

FIRST, DAYS = datetime(2026, 1, 1, tzinfo=UTC), 59
EVENTS_A_USER, ADVERTISERS = 20, 500
DAY = date(2026, 3, 2)  # the one that lands after the history
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # of it
NAMES = np.array(["page_visit", "page_visit", "page_visit", "add_to_cart", "checkout"])


def write_log(root: Path, events: int, item_ids: pl.Series, parts: int = 1) -> Landing:
    """Write a landing zone with ``events`` of two months, whose items occur by a power law.

    The history has files of equal length; one more day has a hundred events.
    """
    landing = Landing(root)
    landing.write_manifest(Manifest(name="benchmark", synthetic=True))
    for part in range(parts):
        landing.write(LandingTable.events, None, _events(events // parts, events, item_ids, seed=part), f"part-{part}")
    one_day = _events(100, events, item_ids, seed=parts).with_columns(event_time=pl.lit(NOON))
    landing.write(LandingTable.events, DAY, one_day)
    return landing


def item_ids(count: int = 200_000) -> pl.Series:
    """Return the ids of a catalogue without further attributes."""
    return pl.select(pl.format("item-{}", pl.int_range(count))).to_series()


def _events(count: int, of: int, item_ids: pl.Series, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    items = (random.pareto(1.1, count) * 100).astype(np.int64) % len(item_ids)
    microseconds = pl.Series(random.integers(0, DAYS * 86_400 * 10**6, count)).cast(pl.Duration("us"))
    return pl.DataFrame(
        {
            "event_id": pl.Series(random.integers(0, 2**62, count)).cast(pl.String),
            "user": random.integers(0, max(of // EVENTS_A_USER, 10), count),
            "event_time": FIRST + microseconds,
            "event_name": NAMES[random.integers(0, len(NAMES), count)],
            "item_id": item_ids.gather(items),
            "advertiser": items % ADVERTISERS,
            "value": np.round(random.random(count) * 100, 2),
        }
    ).select(
        "event_id",
        "event_time",
        "event_name",
        "value",
        "item_id",
        user_id=pl.format("user-{}", "user"),
        advertiser_id=pl.format("advertiser-{}", "advertiser"),
        currency=pl.lit("EUR"),
    )

"""The statistics of a day from counted events against those from each event by itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from ml.features.event_log import row_numbers, to_seconds
from ml.features.items import build_item_statistics
from warehouse.as_of import counted_events, events_as_of
from warehouse.days import day_end
from warehouse.landing import Landing, Manifest
from warehouse.tables import Tables

DAY = date(2026, 3, 29)  # 23 hours long in Berlin
ITEMS = pl.Series("item_id", ["a", "b", "c", "never"])
ADVERTISERS = pl.Series("advertiser_id", ["x", "y"])
WINDOWS = [7.0, 0.25, 1.0, 90.0]


def written(root: Path) -> tuple[Tables, Landing]:
    """Write events that arrive on four days, some after ``DAY``, some late, some on the edges of the windows."""
    random, count = np.random.default_rng(3), 400
    landing, tables = Landing(root / "landing"), Tables(root / "tables")
    landing.write_manifest(Manifest(time_zone="Europe/Berlin"))
    end = day_end(DAY, "Europe/Berlin")
    edges = [end - timedelta(days=days) + timedelta(microseconds=tick) for days in [0, *WINDOWS] for tick in (-1, 0, 1)]
    ages = random.exponential(20, count - len(edges)) - 1
    times = [end - timedelta(days=float(age)) for age in ages] + edges
    rows = pl.DataFrame(
        {
            "user_id": pl.Series(random.integers(0, 9, count)).cast(pl.String),
            "event_id": pl.Series(range(count)).cast(pl.String),
            "event_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "item_id": random.choice(np.array(["a", "b", "c", "of no feed", None]), count).tolist(),
            "advertiser_id": random.choice(np.array(["x", "y", None]), count).tolist(),
        }
    )
    for day, arrived in enumerate(np.array_split(random.permutation(count), 4)):
        tables.write("events", rows[arrived], {"arrival_date": DAY + timedelta(days=day - 2)})
    return tables, landing


def test_counted_events_give_the_statistics_of_each_event_by_itself(tmp_path: Path) -> None:
    tables, landing = written(tmp_path)
    each, counted = events_as_of(tables, landing, DAY), counted_events(tables, landing, DAY, WINDOWS)
    assert counted["events"].sum() == len(each) > len(counted)
    since = np.array([-np.inf, np.inf, datetime(2026, 3, 1, tzinfo=UTC).timestamp(), -np.inf])
    instant = day_end(DAY, "Europe/Berlin").timestamp()
    for column, known in (("item_id", ITEMS), ("advertiser_id", ADVERTISERS)):
        full, together = (
            build_item_statistics(
                row_numbers(known, rows[column]),
                to_seconds(rows["event_time"]),
                since[: len(known)],
                windows_days=WINDOWS,
                groups=(np.zeros(len(known), np.int64),),
                events=events,
            )
            for rows, events in ((each, None), (counted, counted["events"].to_numpy()))
        )
        np.testing.assert_array_equal(full.at(instant), together.at(instant))
        np.testing.assert_array_equal(full.listed_from, together.listed_from)

"""From sessions to rows of the event log: names, times, identifiers, and how the rows arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.catalogue import identifiers
from warehouse.world.dynamics import MAXIMUM_VISITS, Sessions, World

LONGEST_DELAY_DAYS = 3
SECONDS_A_DAY = 86_400
# Shopping by hour of the UTC day: quiet nights, a rise to the evening.
HOURLY_ACTIVITY = np.array([4, 2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 6, 7, 6, 5, 5, 6, 7, 8, 9, 10, 9, 0, 0], dtype=float)
# Steps of a session in their order in time: signup, search, then visit and add_to_cart by turns, then checkout.
SIGNUP, SEARCH, FIRST_VISIT = 0, 1, 2
CHECKOUT = FIRST_VISIT + 2 * MAXIMUM_VISITS
STEPS = CHECKOUT + 1
STEP_NAMES = pl.Series(["signup", "search", *("page_visit", "add_to_cart") * MAXIMUM_VISITS, "checkout"])

EVENT_TIME = pl.Datetime("us", "UTC")
EVENT_SCHEMA = pl.Schema(
    {
        "event_id": pl.String(),
        "user_id": pl.String(),
        "event_time": EVENT_TIME,
        "event_name": pl.String(),
        "advertiser_id": pl.String(),
        "item_id": pl.String(),
        "value": pl.Float64(),
        "currency": pl.String(),
        "search_string": pl.String(),
    }
)


@dataclass(frozen=True)
class Arrivals:
    """The events of one day by the number of days that they are late: ``frames[0]`` arrive on the day itself."""

    day: int
    frames: tuple[pl.DataFrame, ...]

    def on(self, day: int) -> pl.DataFrame:
        """Return the events of this day that arrive on ``day`` (an empty frame when none can)."""
        delay = day - self.day
        return self.frames[delay] if 0 <= delay < len(self.frames) else pl.DataFrame(schema=EVENT_SCHEMA)


def log_sessions(world: World, sessions: Sessions, day: int) -> pl.DataFrame:
    """Return the true event log of one day, one row an event, by session and then in time."""
    generator = world.settings.generator("times", day)
    count = len(sessions.rows)
    happened = _steps(sessions)
    hour = generator.choice(24, count, p=HOURLY_ACTIVITY / HOURLY_ACTIVITY.sum())
    start = (hour + generator.random(count)) * 3600
    # Sessions begin before 22:00 and their at most 27 pauses last 4 minutes at most: they end before midnight.
    pause = np.minimum(generator.exponential(60, happened.shape), 240) * happened
    microseconds = ((start[:, None] + np.cumsum(pause, axis=1)) * 1e6).astype(np.int64)
    session, step = np.nonzero(happened)
    item = _items(sessions)[session, step]
    advertiser = _advertisers(world, sessions)[session, step]
    catalogue = world.catalogue
    prices = np.append(catalogue.prices(day), np.nan)[item]
    is_cart = (step >= FIRST_VISIT) & (step < CHECKOUT) & ((step - FIRST_VISIT) % 2 == 1)
    positive = is_cart | (step == CHECKOUT)
    nouns = pl.Series([catalogue.leaves.noun(leaf).lower() for leaf in range(catalogue.leaves.count)])
    midnight = int(world.settings.midnight(day).timestamp() * 1_000_000)
    has_item = pl.Series(step >= FIRST_VISIT)
    return pl.DataFrame(
        {
            "event_id": identifiers(f"e{day:05d}-", len(step)),
            "user_id": world.population.ids.gather(sessions.rows[session]),
            "event_time": pl.Series(midnight + microseconds[session, step]).cast(EVENT_TIME),
            "event_name": STEP_NAMES.gather(step),
            "advertiser_id": catalogue.advertiser_ids.gather(advertiser),
            "item_id": catalogue.items.ids.gather(np.maximum(item, 0)),
            "value": np.where(positive, prices, 0.0),
            "currency": pl.repeat("USD", len(step), eager=True),
            "search_string": nouns.gather(sessions.leaf[session]),
        }
    ).select(
        "event_id",
        "user_id",
        "event_time",
        "event_name",
        "advertiser_id",
        pl.when(has_item).then("item_id").alias("item_id"),
        pl.when(pl.Series(positive)).then("value").alias("value"),
        pl.when(pl.Series(positive)).then("currency").alias("currency"),
        pl.when(pl.Series(step == SEARCH)).then("search_string").alias("search_string"),
    )


def deliver(world: World, log: pl.DataFrame, day: int) -> Arrivals:
    """Return the arrivals of a day's events: most at once, some late, a few twice (again at once or a day later)."""
    generator = world.settings.generator("delivery", day)
    late = generator.random(log.height) < world.settings.late_share
    delay = np.where(late, generator.integers(1, LONGEST_DELAY_DAYS + 1, log.height), 0)
    again = generator.random(log.height) < world.settings.duplicate_share
    second = np.minimum(delay + generator.integers(0, 2, log.height), LONGEST_DELAY_DAYS)
    return Arrivals(
        day,
        tuple(
            pl.concat([log.filter(pl.Series(delay == days)), log.filter(pl.Series(again & (second == days)))])
            for days in range(LONGEST_DELAY_DAYS + 1)
        ),
    )


def _steps(sessions: Sessions) -> NDArray[np.bool_]:
    """Return whether each step of each session happened (sessions, steps)."""
    happened = np.zeros((len(sessions.rows), STEPS), dtype=bool)
    happened[:, SIGNUP], happened[:, SEARCH] = sessions.signed_up, sessions.searched
    happened[:, FIRST_VISIT:CHECKOUT:2] = np.arange(MAXIMUM_VISITS) < sessions.visits[:, None]
    happened[:, FIRST_VISIT + 1 : CHECKOUT : 2] = sessions.carted
    happened[:, CHECKOUT] = sessions.bought >= 0
    return happened


def _items(sessions: Sessions) -> NDArray[np.int64]:
    """Return the item indices (sessions, steps); -1 for the steps without an item."""
    item = np.full((len(sessions.rows), STEPS), -1, dtype=np.int64)
    item[:, FIRST_VISIT:CHECKOUT:2] = sessions.visited
    item[:, FIRST_VISIT + 1 : CHECKOUT : 2] = sessions.visited
    item[:, CHECKOUT] = sessions.bought
    return item


def _advertisers(world: World, sessions: Sessions) -> NDArray[np.int64]:
    """Return the advertiser of the item (sessions, steps); of the first visited item where a step has no item."""
    of_item = np.append(world.catalogue.items.advertiser, 0)
    advertiser = of_item[_items(sessions)]
    advertiser[:, [SIGNUP, SEARCH]] = of_item[sessions.visited[:, :1]]
    return advertiser

"""A day's arrivals in figures, beside the days before: how much came, what of it is known, how late it was.

The figures say what a model is going to see of a day, whatever the contract allows: a log can be valid row by row and
useless as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import cast

import polars as pl

from settings import QualitySettings
from warehouse.contracts import EVENT_NAMES, LandingTable
from warehouse.ingest import day_end
from warehouse.landing import Landing
from warehouse.tables import Tables

WEEK = 7
SHOWN_DAYS = 4 * WEEK
COVERAGE = {
    "item_known": "events that name an item, whose item the catalogue has",
    "category_known": "… and has a category for",
    "price_known": "… and has a price for",
    "advertiser_known": "events with an advertiser, their own or the item's",
    "users_with_demographics": "users of the day of whom an age, a gender or a country is known",
}


@dataclass(frozen=True)
class Finding:
    """One figure of a day against what was to be expected.

    Attributes:
        name: of the check that it belongs to.
        figure: what was measured.
        value: of the day; None where there is nothing to measure.
        expected: by the days before; None where there are too few.
        warns: it is beyond the bound that deserves a look.
        stops: it is beyond the bound that inference must not pass.
        bound: the one it is held against, in words.
    """

    name: str
    figure: str
    value: float | None
    expected: float | None
    warns: bool
    stops: bool
    bound: str


def figures_by_day(tables: Tables, landing: Landing, day: date) -> pl.DataFrame:
    """The figures of ``day`` and of the ``SHOWN_DAYS`` before, a row a day that has any event.

    A daily arrival counts as its day, the history by the days on which its events happened.

    Returns:
        day; events; a column of ``EVENT_NAMES`` each, events; the columns of ``COVERAGE``, shares (null of nothing);
        late and quarantined, shares (null in the history); newest, the time of the newest event.
    """
    first = day - timedelta(days=SHOWN_DAYS)
    events = _events(tables, landing, first, day).join(_catalogue(tables, day), on="item_id", how="left")
    names_item = pl.col("item_id").is_not_null()
    known = {
        name: (pl.col(name).fill_null(False) & names_item).sum() / names_item.sum()
        for name in ("item_known", "category_known", "price_known")
    }
    advertiser = pl.col("advertiser_id").is_not_null() | pl.col("item_advertiser").fill_null(False)
    by_day = events.group_by("day").agg(
        events=pl.len(),
        **{name: (pl.col("event_name") == name).sum() for name in EVENT_NAMES},
        **{name: pl.when(share.is_finite()).then(share) for name, share in known.items()},
        advertiser_known=advertiser.mean(),
        late=pl.col("late").mean(),
        newest=pl.col("event_time").max(),
    )
    demographics = (
        events.select("day", "user_id")
        .unique()
        .join(_described_users(tables, day), on="user_id", how="left")
        .group_by("day")
        .agg(users_with_demographics=pl.col("described").fill_null(False).mean())
    )
    rejected = tables.scan("quarantine_events").filter(pl.col("arrival_date").is_between(first, day))
    quarantined = rejected.group_by(day="arrival_date").agg(rejected=pl.len())
    share = pl.col("rejected").fill_null(0) / (pl.col("events") + pl.col("rejected").fill_null(0))
    return (
        by_day.join(demographics, on="day", how="left")
        .join(quarantined, on="day", how="left")
        .with_columns(quarantined=pl.when(pl.col("late").is_not_null()).then(share))
        .select("day", "events", *EVENT_NAMES, *COVERAGE, "late", "quarantined", "newest")
        .sort("day")
        .collect(engine="streaming")
    )


def findings(figures: pl.DataFrame, landing: Landing, day: date, settings: QualitySettings) -> list[Finding]:
    """Hold ``day`` against the week before it and the same weekday of the weeks before."""
    today = figures.filter(day=day)
    week = figures.filter(pl.col("day").is_between(day - timedelta(days=WEEK), day - timedelta(days=1)))
    events = int(today["events"].sum())
    found = [_volume(figures, day, events, settings), _newest(figures, landing, day, settings)]
    if events < settings.minimum_events:
        return found
    found += [
        _above("lateness", "late", today, settings.late_warn, settings.late_stop),
        _above("quarantine", "quarantined", today, settings.quarantined_warn, 1.0),
    ]
    if int(week["events"].sum()) < settings.minimum_events:
        return found
    return [*found, _mix(today, week, settings), *(_coverage(name, today, week, settings) for name in COVERAGE)]


def _volume(figures: pl.DataFrame, day: date, events: int, settings: QualitySettings) -> Finding:
    same_weekday = [day - timedelta(days=WEEK * weeks) for weeks in range(1, SHOWN_DAYS // WEEK + 1)]
    before = figures.filter(pl.col("day").is_in(same_weekday))["events"].median()
    expected = float(before) if isinstance(before, int | float) and before >= settings.minimum_events else None

    def beyond(bound: float) -> bool:
        return bool(expected and bound and not bound <= events / expected <= 1 / bound)

    return Finding(
        name="volume",
        figure="events",
        value=events,
        expected=expected,
        warns=beyond(settings.volume_warn),
        stops=beyond(settings.volume_stop),
        bound=f"between {settings.volume_warn:g} and {1 / settings.volume_warn:g} times the same weekday's",
    )


def _newest(figures: pl.DataFrame, landing: Landing, day: date, settings: QualitySettings) -> Finding:
    newest = cast(datetime | None, figures["newest"].max())
    hours = (day_end(day, landing.manifest.time_zone) - newest).total_seconds() / 3600 if newest else None
    return Finding(
        name="newest_event",
        figure="hours before the day's end",
        value=hours,
        expected=None,
        warns=hours is None or hours > settings.newest_hours_warn,
        stops=False,
        bound=f"at most {settings.newest_hours_warn:g} hours",
    )


def _above(name: str, figure: str, today: pl.DataFrame, warn: float, stop: float) -> Finding:
    value = today[figure][0]
    return Finding(
        name=name,
        figure=figure,
        value=value,
        expected=None,
        warns=value is not None and value > warn,
        stops=value is not None and value > stop,
        bound=f"at most {warn:.0%}",
    )


def _mix(today: pl.DataFrame, week: pl.DataFrame, settings: QualitySettings) -> Finding:
    """The total variation distance: the share of events that would have to have another name."""
    shares = [[int(part[name].sum()) / int(part["events"].sum()) for name in EVENT_NAMES] for part in (today, week)]
    distance = sum(abs(now - before) for now, before in zip(*shares, strict=True)) / 2
    return Finding(
        name="event_mix",
        figure="share of events that would need another name",
        value=distance,
        expected=0.0,
        warns=distance > settings.mix_warn,
        stops=distance > settings.mix_stop,
        bound=f"at most {settings.mix_warn:.0%}",
    )


def _coverage(name: str, today: pl.DataFrame, week: pl.DataFrame, settings: QualitySettings) -> Finding:
    value = today[name][0]
    weighted = week.drop_nulls(name).select((pl.col(name) * pl.col("events")).sum() / pl.col("events").sum())
    expected = weighted.item() if len(week.drop_nulls(name)) else None
    fall = expected - value if value is not None and expected is not None else 0.0
    return Finding(
        name="coverage",
        figure=name,
        value=value,
        expected=expected,
        warns=fall > settings.coverage_fall_warn,
        stops=fall > settings.coverage_fall_stop,
        bound=f"at most {settings.coverage_fall_warn:.0%} below the week before",
    )


def _events(tables: Tables, landing: Landing, first: date, day: date) -> pl.LazyFrame:
    """Events with the ``day`` that they count as."""
    history = landing.history_day()
    happened = pl.col("event_time").dt.convert_time_zone(landing.manifest.time_zone).dt.date()
    in_history = pl.col("arrival_date") == history
    return (
        tables.scan(LandingTable.events.value)
        .filter(pl.col("arrival_date").is_between(first, day))
        .with_columns(
            day=pl.when(in_history).then(happened).otherwise("arrival_date"),
            late=pl.when(~in_history).then("late"),
        )
        .filter(pl.col("day").is_between(first, day))
    )


def _catalogue(tables: Tables, day: date) -> pl.LazyFrame:
    """What is known of each item by ``day``, in whatever version of it."""
    items = tables.scan(LandingTable.items.value).filter(pl.col("arrival_date") <= day)
    return items.group_by("item_id").agg(
        item_known=pl.lit(True),
        category_known=pl.col("category").is_not_null().any(),
        price_known=pl.col("price").is_not_null().any(),
        item_advertiser=pl.col("advertiser_id").is_not_null().any(),
    )


def _described_users(tables: Tables, day: date) -> pl.LazyFrame:
    users = tables.scan(LandingTable.users.value).filter(pl.col("arrival_date") <= day)
    return users.group_by("user_id").agg(
        described=pl.any_horizontal(pl.col("age", "gender", "country").is_not_null()).any()
    )

"""A day's arrivals in figures, beside the days before: how much came, what of it is known, how late it was.

The figures say what a model is going to see of a day, whatever the contract allows: a log can be valid row by row and
useless as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import cast

import polars as pl

from settings import UNKNOWN_ADVERTISER, QualitySettings
from warehouse.arrival_days import history_day
from warehouse.contracts import EVENT_NAMES
from warehouse.days import day_end
from warehouse.landing import Landing
from warehouse.spill import staging
from warehouse.tables import Tables

WEEK = 7
SHOWN_DAYS = 4 * WEEK
TIME = pl.Datetime("us", "UTC")
# Shares, and the column that says of how many.
COVERAGE = {
    "items_named": "events",  # events that name an item
    "item_known": "naming",  # of these: whose item the catalogue has
    "category_known": "naming",  # … and has a category for
    "price_known": "naming",  # … and has a price for
    "advertiser_known": "events",  # events with an advertiser, their own or the item's
    "users_with_demographics": "users",  # of whom an age, a gender or a country is known
}

# `days` has the bounds of each day; the events of a daily arrival count as its day, those of the history as the day on
# which they happened. What is known is what was known then: the newest version of an item that had arrived by the day
# (in the history, with the history), as a whole.
FIGURES_SQL = """
WITH arrived AS (
    SELECT days.*, events.* FROM events JOIN days ON events.arrival_date = days.day
    WHERE events.arrival_date > $history
    UNION ALL
    SELECT days.*, events.* FROM events JOIN days ON event_time >= days.begins AND event_time < days.ends
    WHERE events.arrival_date = $history
),
engaged AS (
    SELECT day, greatest(day, $history) AS known_by, item_id, count(*) AS events,
           count(nullif(advertiser_id, '{unknown}')) AS own_advertiser
    FROM arrived GROUP BY ALL
),
versions AS (
    SELECT item_id, arrival_date, category IS NOT NULL AS category, price IS NOT NULL AS price,
           nullif(advertiser_id, '{unknown}') IS NOT NULL AS advertiser
    FROM items
),
described AS (
    SELECT engaged.*, versions.item_id IS NOT NULL AS known, coalesce(versions.category, false) AS category,
           coalesce(versions.price, false) AS price, coalesce(versions.advertiser, false) AS advertiser
    FROM engaged ASOF LEFT JOIN versions
      ON engaged.item_id = versions.item_id AND engaged.known_by >= versions.arrival_date
),
about_items AS (
    SELECT day,
           sum(events) AS events,
           coalesce(sum(events) FILTER (item_id IS NOT NULL), 0) AS naming,
           coalesce(sum(events) FILTER (known), 0) AS known,
           coalesce(sum(events) FILTER (category), 0) AS category,
           coalesce(sum(events) FILTER (price), 0) AS price,
           sum(CASE WHEN advertiser THEN events ELSE own_advertiser END) AS advertiser
    FROM described GROUP BY day
),
active AS (
    SELECT DISTINCT day, greatest(day, $history) AS known_by, user_id FROM arrived
),
people AS (
    SELECT user_id, arrival_date, coalesce(age::VARCHAR, gender, country) IS NOT NULL AS described FROM users
),
about_users AS (
    SELECT active.day, count(*) AS users, count(*) FILTER (people.described) AS described
    FROM active ASOF LEFT JOIN people
      ON active.user_id = people.user_id AND active.known_by >= people.arrival_date
    GROUP BY active.day
),
about_events AS (
    SELECT day, max(least(event_time, ends)) AS newest,
           CASE WHEN day > $history THEN avg(late::DOUBLE) END AS late,
           {names}
    FROM arrived GROUP BY day
),
about_rejected AS (
    SELECT arrival_date AS day, count(*) AS rejected FROM quarantine_events GROUP BY arrival_date
)
SELECT day, events, naming, users, {name_columns},
       naming / events AS items_named,
       known / nullif(naming, 0) AS item_known,
       category / nullif(naming, 0) AS category_known,
       price / nullif(naming, 0) AS price_known,
       advertiser / events AS advertiser_known,
       described / users AS users_with_demographics,
       late,
       CASE WHEN day > $history THEN coalesce(rejected, 0) / (events + coalesce(rejected, 0)) END AS quarantined,
       newest
FROM about_items JOIN about_events USING (day) JOIN about_users USING (day) LEFT JOIN about_rejected USING (day)
ORDER BY day
""".format(
    unknown=UNKNOWN_ADVERTISER,
    names=", ".join(f"count(*) FILTER (event_name = '{name}') AS {name}" for name in EVENT_NAMES),
    name_columns=", ".join(EVENT_NAMES),
)
# Two users' events with one event_id are two events, but an export that makes such ids may mean something else by them.
SHARED_IDS_SQL = """
WITH today AS (SELECT DISTINCT event_id FROM events WHERE arrival_date = $day),
shared AS (
    SELECT event_id FROM events SEMI JOIN today USING (event_id)
    WHERE arrival_date <= $day
    GROUP BY event_id HAVING min(user_id) <> max(user_id)
)
SELECT count(*) AS shared FROM events SEMI JOIN shared USING (event_id) WHERE arrival_date = $day
"""
FIGURES_SCHEMA = pl.Schema(
    {
        "day": pl.Date(),
        **dict.fromkeys(("events", "naming", "users", *EVENT_NAMES), pl.Int64()),
        **dict.fromkeys((*COVERAGE, "late", "quarantined"), pl.Float64()),
        "newest": TIME,
    }
)


@dataclass(frozen=True)
class Finding:
    """One figure of a day compared with an expected figure.

    Attributes:
        name: the name of the check.
        figure: the measured quantity, in words.
        value: the value of the day; None where there is nothing to measure.
        expected: the value that the days before let expect; None where there are too few days.
        warns: the value is beyond the bound that deserves a look.
        stops: the value is beyond the bound that inference must not pass.
        bound: the bound of the value, in words.
    """

    name: str
    figure: str
    value: float | None
    expected: float | None
    warns: bool
    stops: bool
    bound: str


def figures_by_day(tables: Tables, landing: Landing, day: date, memory_gib: float) -> pl.DataFrame:
    """Return the figures of ``day`` and of the ``SHOWN_DAYS`` before, one row for each day that has an event.

    Returns:
        ``FIGURES_SCHEMA``: events, those that name an item (``naming``), users, events by name; the shares of
        ``COVERAGE`` (null of nothing); late and quarantined, shares (null in the history); the time of the newest
        event, at most the end of its day.
    """
    wanted = [day - timedelta(days=back) for back in range(SHOWN_DAYS, -1, -1)]
    bounds = [day_end(each, landing.manifest.time_zone) for each in [wanted[0] - timedelta(days=1), *wanted]]
    days = {"day": wanted, "begins": bounds[:-1], "ends": bounds[1:]}
    history = history_day(tables, landing)
    with staging(tables.root, memory_gib) as staged:
        staged.add("days", pl.DataFrame(days, schema_overrides={"begins": TIME, "ends": TIME}))
        for name in ("events", "items", "users", "quarantine_events"):
            files = tables.files(name)
            if files:
                staged.view(name, files)
            else:
                staged.add(name, tables.scan(name).collect_schema().to_frame())
        found = staged.batches(FIGURES_SQL, FIGURES_SCHEMA, {"history": history})
        return pl.concat([FIGURES_SCHEMA.to_frame(), *found])


def shared_event_ids(tables: Tables, day: date, memory_gib: float) -> int:
    """Count the events of ``day`` whose event_id an event of another user has, on that day or on a day before."""
    files = tables.files("events")
    if not files:
        return 0
    with staging(tables.root, memory_gib) as staged:
        staged.view("events", files)
        [counted] = staged.batches(SHARED_IDS_SQL, pl.Schema({"shared": pl.Int64()}), {"day": day})
        return int(counted.item())


def judged_shared_ids(shared: int, figures: pl.DataFrame, day: date, settings: QualitySettings) -> Finding:
    """Compare ``shared``, the count of ``shared_event_ids`` of ``day``, with the day's events; warn, but never stop."""
    events = int(figures.filter(day=day)["events"].sum())
    enough = events >= settings.minimum_events
    return Finding(
        name="event_ids",
        figure="events whose event_id another user has",
        value=shared,
        expected=None,
        warns=enough and shared / events > settings.shared_ids_warn,
        stops=False,
        bound=f"at most {settings.shared_ids_warn:.0%} of the events",
    )


def findings(figures: pl.DataFrame, landing: Landing, day: date, settings: QualitySettings) -> list[Finding]:
    """Compare ``day`` with the week before the day and with the same weekday of the weeks before."""
    today = figures.filter(day=day)
    week = figures.filter(pl.col("day").is_between(day - timedelta(days=WEEK), day - timedelta(days=1)))
    events = int(today["events"].sum())
    found = [_volume(figures, day, events, settings), _newest(figures, landing, day, settings)]
    if events < settings.minimum_events:
        return found
    found += [
        _above("lateness", "late", today, warn=settings.late_warn, stop=settings.late_stop),
        _above("quarantine", "quarantined", today, warn=settings.quarantined_warn, stop=1.0),
    ]
    if int(week["events"].sum()) >= settings.minimum_events:
        found.append(_mix(today, week, settings))
    judged = [name for name in COVERAGE if _enough(name, today, week, settings)]
    return [*found, *(_coverage(name, today, week, settings) for name in judged)]


def _enough(name: str, today: pl.DataFrame, week: pl.DataFrame, settings: QualitySettings) -> bool:
    """Whether a share has enough rows to be judged, today and in the week before."""
    return min(int(part[COVERAGE[name]].sum()) for part in (today, week)) >= settings.minimum_events


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


def _above(name: str, figure: str, today: pl.DataFrame, *, warn: float, stop: float) -> Finding:
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
    """Return a finding on the total variation distance: the share of events that would need another name."""
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
    value = float(today[name][0])
    of = COVERAGE[name]
    expected = float(week.select((pl.col(name) * pl.col(of)).sum() / pl.col(of).sum()).item())
    fall = expected - value
    return Finding(
        name="coverage",
        figure=name,
        value=value,
        expected=expected,
        warns=fall > settings.coverage_fall_warn,
        stops=fall > settings.coverage_fall_stop,
        bound=f"at most {settings.coverage_fall_warn:.0%} below the week before",
    )

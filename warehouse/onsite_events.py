"""Clicked and converted impressions as events of the user's sequence, where the manifest says ``onsite_events``.

An impression that was clicked or converted is an ``ad_click``; a converted one is an ``ad_conversion``, too. Both are
events of their own kind: they are in sequences only, and nothing counts them.

* A click happened at the time of its request. A conversion happened at the time of its request too, unless the row that
  says so arrived on a later day: then at the beginning of that day. A row of the history says what was known at the end
  of the day of its request.
* The event arrives when the first row arrives that says so. Rows of one user, request and item are one impression.
* The advertiser is the one that the item had when it first named one, if that was known when the event arrived.
* The event id is made of the name, the request and the item, so that it is the same whenever it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from settings import AD_CLICK, AD_CONVERSION, ONSITE_EVENTS, DataSettings
from warehouse.arrival_days import history_day
from warehouse.as_of import events_as_of
from warehouse.contracts import EVENT_NAMES, MINIMUM_TIME, LandingTable
from warehouse.day_records import recorded_files
from warehouse.days import day_end
from warehouse.landed_files import changes, files_of
from warehouse.landing import Landing
from warehouse.spill import Staging, staging
from warehouse.tables import Tables

MEMORY_GIB = DataSettings().memory_gib
EVENTS, IMPRESSIONS, ITEMS = (
    table.value for table in (LandingTable.events, LandingTable.impressions, LandingTable.items)
)

EVENT_SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "event_id": pl.String(),
        "event_time": pl.Datetime("us", "UTC"),
        "event_name": pl.String(),
        "item_id": pl.String(),
        "advertiser_id": pl.String(),
        "value": pl.Float64(),
    }
)
ARRIVED = pl.Schema({**EVENT_SCHEMA, "arrival_date": pl.Date()})
_ITEM = pl.Schema({"item_id": pl.String(), "advertiser_id": pl.String(), "arrival_date": pl.Date()})

_ARRIVALS = pl.Schema({"day": pl.Date(), "begins": pl.Datetime("us", "UTC")})
_IMPRESSION = pl.Schema(
    {
        "user_id": pl.String(),
        "request_id": pl.String(),
        "request_time": pl.Datetime("us", "UTC"),
        "item_id": pl.String(),
        "stage": pl.String(),
        "arrival_date": pl.Date(),
    }
)

# `arrivals` are the days of the impressions and their first instants. The earliest arrival decides everything, so a
# later arrival changes no event of an earlier day.
ONSITE_SQL = f"""
WITH named AS (
    SELECT item_id, arg_min(advertiser_id, arrival_date) AS advertiser_id, min(arrival_date) AS named_on
    FROM items WHERE advertiser_id IS NOT NULL GROUP BY item_id
),
reached AS (
    SELECT user_id, request_id, item_id, arg_min(request_time, arrival_date) AS request_time,
           min(arrival_date) AS clicked_on, min(arrival_date) FILTER (stage = 'converted') AS converted_on
    FROM impressions WHERE stage IN ('clicked', 'converted')
    GROUP BY user_id, request_id, item_id
),
happened AS (
    SELECT user_id, request_id, item_id, '{AD_CLICK}' AS event_name, request_time AS event_time,
           clicked_on AS arrival_date
    FROM reached
    UNION ALL
    SELECT user_id, request_id, item_id, '{AD_CONVERSION}', greatest(request_time, begins), converted_on
    FROM reached JOIN arrivals ON converted_on = day
)
SELECT user_id, event_name || ':' || strlen(request_id) || ':' || request_id || ':' || item_id AS event_id,
       event_time, event_name, item_id,
       CASE WHEN named_on <= arrival_date THEN advertiser_id END AS advertiser_id,
       CAST(NULL AS DOUBLE) AS value, arrival_date
FROM happened LEFT JOIN named USING (item_id)
"""


def event_names(landing: Landing) -> list[str]:
    """Return the names of the events of sequences, in the order of a model's codes."""
    return [*EVENT_NAMES, *ONSITE_EVENTS] if landing.manifest.onsite_events else list(EVENT_NAMES)


def days_with_arrivals(tables: Tables, landing: Landing) -> list[date]:
    """Return the days on which an event of a sequence may have arrived, ascending."""
    days = set(tables.days(EVENTS, "arrival_date"))
    if landing.manifest.onsite_events:
        days |= set(tables.days(IMPRESSIONS, "arrival_date"))
    return sorted(days)


def impressions_wait(tables: Tables, landing: Landing, day: date) -> bool:
    """Return whether sequences hold onsite events, and the day's impressions are not ingested as they have landed."""
    if not landing.manifest.onsite_events:
        return False
    before = recorded_files(tables, LandingTable.impressions, day)
    now = files_of(landing, LandingTable.impressions, day, before)
    return bool(changes(landing.folder(LandingTable.impressions, day), before, now))


@dataclass(frozen=True)
class OnsiteFiles:
    """The data that onsite events are made of.

    Attributes:
        impressions, items: files of the tables; none of a table that does not exist.
        arrivals: day, begins: the arrival days of the impressions, and the instant before which no conversion happened.
    """

    impressions: Sequence[str]
    items: Sequence[str]
    arrivals: pl.DataFrame

    @classmethod
    def of(cls, tables: Tables, landing: Landing) -> OnsiteFiles:
        """Return the files of a home; this opens the tables, and ``view`` opens none."""
        days, history = tables.days(IMPRESSIONS, "arrival_date"), history_day(tables, landing)
        zone = landing.manifest.time_zone
        begins = [MINIMUM_TIME if day == history else day_end(day - timedelta(days=1), zone) for day in days]
        arrivals = pl.DataFrame({"day": days, "begins": begins}, schema=_ARRIVALS)
        return cls(_files(tables, IMPRESSIONS), _files(tables, ITEMS), arrivals)

    def view(self, staged: Staging) -> None:
        """Create the view ``onsite`` of the onsite events of all arrivals, with the columns ``ARRIVED``."""
        staged.add("arrivals", self.arrivals)
        _view(staged, "impressions", self.impressions, _IMPRESSION)
        _view(staged, "items", self.items, _ITEM)
        staged.execute(f"CREATE VIEW onsite AS {ONSITE_SQL}")


@dataclass(frozen=True)
class EventFiles:
    """The data that the events of sequences are read from.

    Attributes:
        offsite: files of table ``events``.
        onsite: None where the manifest does not say ``onsite_events``.
    """

    offsite: Sequence[str]
    onsite: OnsiteFiles | None

    @classmethod
    def of(cls, tables: Tables, landing: Landing) -> EventFiles:
        """Return the files of a home; this opens the tables, and ``view`` opens none."""
        onsite = OnsiteFiles.of(tables, landing) if landing.manifest.onsite_events else None
        return cls(_files(tables, EVENTS), onsite)

    def view(self, staged: Staging) -> None:
        """Create the view ``events`` of all events of sequences, with the columns ``ARRIVED``."""
        _view(staged, "offsite", self.offsite, ARRIVED)
        parts = ["offsite"]
        if self.onsite is not None:
            self.onsite.view(staged)
            parts.append("onsite")
        selected = [f"SELECT {', '.join(ARRIVED.names())} FROM {part}" for part in parts]
        staged.execute(f"CREATE VIEW events AS {' UNION ALL '.join(selected)}")


def onsite_events(tables: Tables, landing: Landing, memory_gib: float = MEMORY_GIB) -> pl.DataFrame:
    """Return the onsite events of all arrivals, whatever the manifest says: ``ARRIVED``, in no particular order."""
    files = OnsiteFiles.of(tables, landing)
    with staging(tables.root, memory_gib) as staged:
        files.view(staged)
        return pl.concat([ARRIVED.to_frame(), *staged.batches("SELECT * FROM onsite", ARRIVED)])


def sequence_events_as_of(tables: Tables, landing: Landing, day: date, columns: Sequence[str]) -> pl.DataFrame:
    """Return the events of sequences that arrived on or before ``day`` and happened before the end of ``day``.

    These are the events of ``events_as_of``, and the onsite events where the manifest says so.

    Args:
        columns: some of ``EVENT_SCHEMA``.

    Returns:
        ``columns``, sorted by user_id, event_time, event_id.

    Raises:
        TableMissing: no events have been ingested.
    """
    if not landing.manifest.onsite_events:
        return events_as_of(tables, landing, day, columns)
    end = day_end(day, landing.manifest.time_zone)
    offsite = events_as_of(tables, landing, day, EVENT_SCHEMA.names())
    onsite = onsite_events(tables, landing).filter(pl.col("arrival_date") <= day, pl.col("event_time") < end)
    both = pl.concat([offsite, onsite.select(EVENT_SCHEMA.names())])
    return both.sort("user_id", "event_time", "event_id").select(columns)


def _files(tables: Tables, name: str) -> list[str]:
    return tables.files(name) if tables.exists(name) else []


def _view(staged: Staging, name: str, files: Sequence[str], schema: pl.Schema) -> None:
    """Create a view of the files of a table; an empty one with the columns ``schema`` without files."""
    if files:
        staged.view(name, files)
    else:
        staged.add(name, schema.to_frame())

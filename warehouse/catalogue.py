"""What a day sees: the newest items and users that had arrived by then, and the events that had happened by then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from settings import DataSettings
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.home import Home
from warehouse.identity import external_ids
from warehouse.ingest import day_end, ingest
from warehouse.landing import Landing
from warehouse.tables import Tables


def items_as_of(tables: Tables, landing: Landing, day: date) -> pl.DataFrame:
    """The catalogue as of the end of ``day``: contract columns of items, one row an item, sorted by ``item_id``.

    An item's newest version that arrived on or before ``day``. ``available_from`` is the earlier of the given time and
    the item's first event, and null where there is neither. Items that only events know are added with their id and the
    advertiser of their first event that names one.
    """
    given = _newest(tables, LandingTable.items, "item_id", day)
    engaged = _events(tables, landing, day).filter(pl.col("item_id").is_not_null())
    first_seen = engaged.group_by("item_id").agg(first_event=pl.col("event_time").min()).collect(engine="streaming")
    unlisted = (
        engaged.join(given.lazy().select("item_id"), on="item_id", how="anti")
        .sort("event_time", "event_id", "user_id")
        .group_by("item_id")
        .agg(pl.col("advertiser_id").drop_nulls().first())
        .collect()
    )
    return (
        pl.concat([given, unlisted], how="diagonal")
        .join(first_seen, on="item_id", how="left")
        .with_columns(available_from=pl.min_horizontal("available_from", "first_event"))
        .drop("first_event")
        .sort("item_id")
    )


def users_as_of(tables: Tables, day: date) -> pl.DataFrame:
    """Demographics as of ``day``: contract columns of users, the newest version a user, sorted by ``user_id``."""
    return _newest(tables, LandingTable.users, "user_id", day).sort("user_id")


def events_as_of(tables: Tables, landing: Landing, day: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Events that arrived on or before ``day`` and happened before its end.

    Returns:
        The columns asked for (default: all of the contract, ``late`` and ``arrival_date``), sorted by user_id,
        event_time, event_id.

    Raises:
        TableMissing: no events have been ingested.
    """
    events = _events(tables, landing, day).sort("user_id", "event_time", "event_id")
    return (events if columns is None else events.select(columns)).collect()


def _events(tables: Tables, landing: Landing, day: date) -> pl.LazyFrame:
    end = day_end(day, landing.manifest.time_zone)
    return tables.scan("events").filter(pl.col("arrival_date") <= day, pl.col("event_time") < end)


def _newest(tables: Tables, table: LandingTable, key: str, day: date) -> pl.DataFrame:
    """The newest version of every row; no rows where the (optional) table was never ingested."""
    schema = pl.Schema(SCHEMAS[table])
    if not tables.exists(table.value):
        return pl.DataFrame(schema=schema)
    arrived = tables.scan(table.value).filter(pl.col("arrival_date") <= day).sort("arrival_date")
    return arrived.unique(key, keep="last", maintain_order=True).select(schema.names()).collect()


def landed_items(landing: Landing, settings: DataSettings) -> pl.DataFrame:
    """The newest version of every item of a landing zone, validated like any arrival, without a home: contract columns,
    one row an item, sorted by ``item_id``.

    Raises:
        LandingError, QuarantineExceeded: as ``ingest``.
    """
    with _landed(landing, LandingTable.items, settings) as tables:
        return _newest(tables, LandingTable.items, "item_id", landing.dates()[-1]).sort("item_id")


def landed_positives(landing: Landing, settings: DataSettings) -> pl.DataFrame:
    """Return the conversions with items of a landing zone, validated like any arrival, without a home.

    Returns:
        user_id (as the landing zone has it), event_time, event_id, item_id; in no particular order.

    Raises:
        LandingError, QuarantineExceeded: as ``ingest``.
    """
    with _landed(landing, LandingTable.events, settings) as tables:
        events = (
            tables.scan(LandingTable.events.value)
            .filter(
                pl.col("event_name").is_in(landing.manifest.positive_events),
                pl.col("item_id").is_not_null(),
            )
            .select("user_id", "event_time", "event_id", "item_id")
            .collect()
        )
        return events.with_columns(external_ids(tables, events["user_id"]).alias("user_id"))


@contextmanager
def _landed(landing: Landing, table: LandingTable, settings: DataSettings) -> Iterator[Tables]:
    """One table of a landing zone, ingested into a directory that goes afterwards."""
    with TemporaryDirectory(prefix="adseq-landed-") as directory:
        tables = Tables(Home(Path(directory)).tables)
        for day in [None, *landing.dates()]:
            ingest(landing, tables, table, day, settings)
        yield tables

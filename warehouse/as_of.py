"""The data that a day sees: the newest items, users and ads that had arrived by then, and the events until then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import polars as pl

from settings import DataSettings
from warehouse.contracts import KEYS, SCHEMAS, LandingTable
from warehouse.days import day_end
from warehouse.home import Home
from warehouse.identity import external_ids
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

NEVER = datetime(9999, 12, 31, tzinfo=UTC)  # ``listed_from`` of an item that only events know


def items_as_of(tables: Tables, landing: Landing, day: date) -> pl.DataFrame:
    """Return the catalogue as of the end of ``day``, one row an item, sorted by ``item_id``.

    The row of an item is the newest version that arrived on or before ``day``. Items that only events know are added
    with their id and the advertiser of their first event that names an advertiser.

    Returns:
        The contract columns of items and ``listed_from``: the instant from which the feed lists the item, the later of
        its first arrival (``_arrivals``) and its ``available_from``; null = always, ``NEVER`` = the feed lacks it.
    """
    listed_from = pl.max_horizontal("arrived", "available_from")
    given = (
        _newest(tables, LandingTable.items, day)
        .join(_arrivals(tables, landing, day), on="item_id", how="left")
        .with_columns(listed_from=listed_from)
        .drop("arrived")
    )
    engaged = engaged_items(tables, landing, day)
    unknown = engaged.filter(~engaged.is_in(given["item_id"].implode()))
    if unknown.is_empty():
        return given.sort("item_id")
    unlisted = (
        _events(tables, landing, day)
        .filter(pl.col("item_id").is_in(unknown.implode()))
        .sort("event_time", "event_id", "user_id")
        .group_by("item_id")
        .agg(pl.col("advertiser_id").drop_nulls().first())
        .collect(engine="streaming")
    )
    never = pl.lit(NEVER).cast(given.schema["listed_from"])
    return pl.concat([given, unlisted.with_columns(listed_from=never)], how="diagonal").sort("item_id")


def items_at(tables: Tables, landing: Landing, instant: datetime) -> pl.DataFrame:
    """Return the catalogue as of the newest day that had ended by ``instant``, with the columns of ``items_as_of``.

    Before the end of the day of the first feed the result is that feed's catalogue: nothing older is known
    of its items.
    """
    days = tables.days(LandingTable.items.value, "arrival_date") or tables.days("events", "arrival_date")
    local = instant.astimezone(ZoneInfo(landing.manifest.time_zone)).date()
    return items_as_of(tables, landing, max(local - timedelta(days=1), days[0]))


def users_as_of(tables: Tables, day: date) -> pl.DataFrame:
    """Return the users as of ``day``: contract columns, the newest version of each user, sorted by ``user_id``."""
    return _newest(tables, LandingTable.users, day).sort("user_id")


def stock_as_of(tables: Tables, day: date) -> pl.DataFrame:
    """Return item_id, availability and countries of the feed's items as of ``day``, the newest version of each item."""
    return _newest(tables, LandingTable.items, day, ["item_id", "availability", "countries"])


def ads_as_of(tables: Tables, day: date) -> pl.DataFrame | None:
    """Return the ads as of ``day``: contract columns, the newest version of each ad, sorted by ``ad_id``.

    None where no ad has arrived by then: nobody has to pay for a place.
    """
    ads = _newest(tables, LandingTable.ads, day)
    return None if ads.is_empty() else ads.sort("ad_id")


def spend_as_of(tables: Tables, landing: Landing, instant: datetime, since: date) -> pl.DataFrame:
    """Return what each ad has spent on each day of the log from ``since`` on, as far as impressions say by an instant.

    The impressions are those that happened before the instant and arrived on or before its day. An impression that
    arrived again, such as one that was clicked meanwhile, counts as it arrived last; one without a price costs nothing.

    Returns:
        ad_id, day, spent (the sum of ``price_paid``), sorted by day and ad_id.
    """
    zone = ZoneInfo(landing.manifest.time_zone)
    begin = day_end(since - timedelta(days=1), landing.manifest.time_zone)
    known = arrived_by(tables, LandingTable.impressions, instant.astimezone(zone).date())
    newest = (
        known.filter(pl.col("request_time") >= begin, pl.col("request_time") < instant)
        .sort("arrival_date")
        .unique(KEYS[LandingTable.impressions], keep="last", maintain_order=True)
    )
    day = pl.col("request_time").dt.convert_time_zone(landing.manifest.time_zone).dt.date()
    charged = newest.filter(pl.col("ad_id").is_not_null(), pl.col("price_paid") > 0)
    spent = charged.group_by("ad_id", day=day).agg(spent=pl.col("price_paid").sum())
    return spent.sort("day", "ad_id").collect()


def events_as_of(tables: Tables, landing: Landing, day: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the events that arrived on or before ``day`` and happened before the end of ``day``.

    Returns:
        The columns asked for (default: all of the contract, ``late`` and ``arrival_date``), sorted by user_id,
        event_time, event_id.

    Raises:
        TableMissing: no events have been ingested.
    """
    events = _events(tables, landing, day).sort("user_id", "event_time", "event_id")
    return (events if columns is None else events.select(columns)).collect()


def scan_events(tables: Tables, landing: Landing, day: date) -> pl.LazyFrame:
    """Return the events of ``events_as_of``, all columns, lazily and in no particular order.

    Raises:
        TableMissing: no events have been ingested.
    """
    return _events(tables, landing, day)


def counted_events(tables: Tables, landing: Landing, day: date, windows_days: Sequence[float]) -> pl.DataFrame:
    """Count the events as of the end of ``day`` by item, advertiser and the shortest trailing window that holds them.

    All figures of trailing windows that end with the day follow from the counts. One pass over the events, which keeps
    in memory the counts alone.

    Returns:
        item_id, advertiser_id (null where the events name none), event_time (of the first of these events), events;
        in no particular order.
    """
    end = day_end(day, landing.manifest.time_zone)
    older = [(pl.col("event_time") < end - timedelta(days=days)).cast(pl.Int8) for days in windows_days]
    counted = (
        _events(tables, landing, day)
        .group_by("item_id", "advertiser_id", window=pl.sum_horizontal(pl.lit(0, pl.Int8), *older))
        .agg(pl.col("event_time").min(), events=pl.len().cast(pl.Int64))
    )
    return counted.drop("window").collect(engine="streaming")


def engaged_items(tables: Tables, landing: Landing, day: date) -> pl.Series:
    """Return the ids of the items that any user has engaged with by the end of ``day``, each id once."""
    named = _events(tables, landing, day).select("item_id").drop_nulls()
    return named.unique().collect(engine="streaming")["item_id"]


def items_of_users(tables: Tables, landing: Landing, day: date, users: pl.Series) -> pl.DataFrame:
    """Return each pair of user_id and item_id that ``users`` have engaged with by the end of ``day``, once."""
    own = _events(tables, landing, day).filter(pl.col("user_id").is_in(users.implode()))
    return own.select("user_id", "item_id").drop_nulls().unique().collect(engine="streaming")


def arrived_by(tables: Tables, table: LandingTable, day: date) -> pl.LazyFrame:
    """Return the rows of a landing table that arrived on or before ``day``: contract columns and ``arrival_date``.

    A column that the table lacks, because nothing has arrived since the contract has the column, is null. There are no
    rows where the table was never ingested.
    """
    schema = pl.Schema({**pl.Schema(SCHEMAS[table]), "arrival_date": pl.Date()})
    if not tables.exists(table.value):
        return pl.LazyFrame(schema=schema)
    stored = tables.newest(table.value)
    rows = stored.scan().filter(pl.col("arrival_date") <= day)
    absent = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in stored.schema]
    return rows.with_columns(absent).select(schema.names())


def _events(tables: Tables, landing: Landing, day: date) -> pl.LazyFrame:
    end = day_end(day, landing.manifest.time_zone)
    return tables.scan("events").filter(pl.col("arrival_date") <= day, pl.col("event_time") < end)


def _arrivals(tables: Tables, landing: Landing, day: date) -> pl.DataFrame:
    """Return when each item first arrived: item_id, arrived (the start of the day of the first arrival).

    ``arrived`` is null for the items of the first feed, such as the history's: the feed may have held
    these items for any time before.
    """
    schema = {"item_id": pl.String(), "arrived": pl.Datetime("us", "UTC")}
    days = tables.days(LandingTable.items.value, "arrival_date")
    starts = {each: day_end(each - timedelta(days=1), landing.manifest.time_zone) for each in days[1:] if each <= day}
    if not starts:
        return pl.DataFrame(schema=schema)
    arrived = tables.scan(LandingTable.items.value).filter(pl.col("arrival_date") <= day)
    first = arrived.group_by("item_id").agg(day=pl.col("arrival_date").min()).collect(engine="streaming")
    start = pl.col("day").replace_strict(starts, default=None, return_dtype=schema["arrived"])
    return first.select("item_id", arrived=start)


def _newest(tables: Tables, table: LandingTable, day: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the newest version of every row as of ``day``; no rows where the (optional) table was never ingested."""
    newest = arrived_by(tables, table, day).sort("arrival_date").unique(KEYS[table], keep="last", maintain_order=True)
    return newest.drop("arrival_date").select(columns or pl.all()).collect()


def landed_items(landing: Landing, settings: DataSettings) -> pl.DataFrame:
    """Return the newest version of every item of a landing zone, sorted by ``item_id``, in contract columns.

    There is one row an item. The rows are validated like any arrival. No home is needed.

    Raises:
        LandingError, QuarantineExceeded: as ``ingest``.
    """
    with _landed(landing, LandingTable.items, settings) as tables:
        return _newest(tables, LandingTable.items, landing.dates()[-1]).sort("item_id")


def landed_positives(landing: Landing, settings: DataSettings) -> pl.DataFrame:
    """Return the conversions with items of a landing zone. The rows are validated like any arrival; no home is needed.

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
    """Yield tables with one table of a landing zone, ingested into a directory that is removed afterwards."""
    with TemporaryDirectory(prefix="adseq-landed-") as directory:
        tables = Tables(Home(Path(directory)).tables)
        for day in [None, *landing.dates()]:
            ingest(landing, tables, table, day=day, settings=settings)
        yield tables

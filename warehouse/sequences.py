"""Per-user behaviour sequences, computed from the event log (never from yesterday's sequences), in DuckDB.

A sequence is as of a day: the user's newest events that had arrived by that day and happened before its end, within the
look-back window, in the total order (event_time, event_id).
"""

from __future__ import annotations

from datetime import date, timedelta

import duckdb
import polars as pl

from settings import SequenceSettings
from warehouse.ingest import day_end
from warehouse.landing import Landing
from warehouse.tables import Tables

# $files are the Delta table's current files; `days` the wanted days with their window [window_start, window_end).
# The rows come sorted; Polars turns them into lists, 2.5 times as fast as list(... ORDER BY ...) a column would.
# Users are pruned to those active on a wanted day before anything is sorted, so that a day costs what its users cost.
SEQUENCES_SQL = """
WITH events AS NOT MATERIALIZED (
    SELECT * FROM read_parquet($files, hive_partitioning = true, hive_types = {'arrival_date': DATE})
),
active AS (
    SELECT user_id, max(arrival_date) AS day
    FROM events JOIN days ON events.arrival_date = days.day
    WHERE arrival_date BETWEEN $first_day AND $last_day
      AND event_time < window_end
    GROUP BY user_id
),
newest AS (
    SELECT user_id, event_id, event_time, event_name, item_id, advertiser_id, value
    FROM events JOIN active USING (user_id) JOIN days USING (day)
    WHERE arrival_date <= $last_day
      AND arrival_date <= day
      AND event_time >= window_start
      AND event_time < window_end
    QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY event_time DESC, event_id DESC) <= $length
)
SELECT user_id, event_id, event_time, event_name, item_id, advertiser_id, value
FROM newest
ORDER BY user_id, event_time, event_id
"""

SEQUENCE_SCHEMA = {
    "user_id": pl.String(),
    "event_id": pl.List(pl.String()),
    "event_time": pl.List(pl.Datetime("us", "UTC")),
    "event_name": pl.List(pl.String()),
    "item_id": pl.List(pl.String()),
    "advertiser_id": pl.List(pl.String()),
    "value": pl.List(pl.Float64()),
}


def user_sequences(tables: Tables, landing: Landing, day: date, settings: SequenceSettings) -> pl.DataFrame:
    """Sequences as of ``day`` of the users with an event that arrived on ``day``, oldest event first.

    An event that happened after the end of ``day`` makes nobody active and is in no sequence. A user whose every
    visible event lies before the look-back window (``settings.lookback_days`` of 24 hours before the end of ``day``)
    has no row.

    Returns:
        ``SEQUENCE_SCHEMA``, one row a user, sorted by user_id; the lists of a row are equally long, at most
        ``settings.length``.

    Raises:
        TableMissing: no events have been ingested.
    """
    return _sequences(tables, landing, [day], settings)


def all_user_sequences(tables: Tables, landing: Landing, day: date, settings: SequenceSettings) -> pl.DataFrame:
    """Every user's sequence as of their own last active day on or before ``day``: what a full inference encodes.

    A user's row equals that of ``user_sequences`` on their last active day, so incremental can equal full.

    Returns and raises as ``user_sequences``.
    """
    arrival_days = [arrived for arrived in tables.days("events", "arrival_date") if arrived <= day]
    return _sequences(tables, landing, arrival_days, settings)


def _sequences(tables: Tables, landing: Landing, days: list[date], settings: SequenceSettings) -> pl.DataFrame:
    tables.require("events")
    files = tables.files("events")
    if not files or not days:
        return pl.DataFrame(schema=SEQUENCE_SCHEMA)
    time_zone = landing.manifest.time_zone
    ends = [day_end(day, time_zone) for day in days]
    windows = pl.DataFrame(
        {
            "day": days,
            "window_start": [end - timedelta(days=settings.lookback_days) for end in ends],
            "window_end": ends,
        },
        schema={"day": pl.Date(), "window_start": pl.Datetime("us", "UTC"), "window_end": pl.Datetime("us", "UTC")},
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("days", windows.to_arrow())
        parameters = {"files": files, "first_day": min(days), "last_day": max(days), "length": settings.length}
        events = connection.sql(SEQUENCES_SQL, params=parameters).pl()
    return events.group_by("user_id", maintain_order=True).agg(pl.all()).cast(SEQUENCE_SCHEMA)

"""Per-user behaviour sequences, computed from the event log (never from yesterday's sequences), in DuckDB.

A sequence is as of a day: the user's newest events that had arrived by that day and happened before its end, within the
look-back window, in the total order (event_time, event_id). Where the manifest says ``onsite_events``, clicked and
converted impressions are events, too (``warehouse.onsite_events``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil
from pathlib import Path
from typing import Protocol

import polars as pl

from settings import DataSettings, SequenceSettings
from warehouse.days import day_end
from warehouse.landing import Landing
from warehouse.onsite_events import EVENT_SCHEMA, EventFiles, days_with_arrivals
from warehouse.spill import in_full_order, staging
from warehouse.tables import Tables
from warehouse.user_buckets import UserBucket, user_buckets

DEFAULTS = DataSettings()
EVENTS_TO_ENCODE = 500_000
USERS_OF_A_SORT = 50_000

# `events` are the offsite and onsite events; `days` the wanted days with their window [window_start, window_end).
# Users are pruned to those active on a wanted day before anything is sorted, so that a day costs what its users cost.
ACTIVE_SQL = """
CREATE TABLE active AS
SELECT user_id, max(arrival_date) AS day, CAST(row_number() OVER (ORDER BY user_id) AS INTEGER) AS number
FROM events JOIN days ON events.arrival_date = days.day
WHERE {bucket}
  AND arrival_date BETWEEN $first_day AND $last_day
  AND event_time < window_end
GROUP BY user_id
"""
RANGES_SQL = """
SELECT min(user_id), max(user_id) FROM active GROUP BY (number - 1) // $users ORDER BY 1
"""
# The users of a range are sorted at once. Their events lie in few row groups and fit into memory, so nothing is sorted
# on the disk. What is too old for a sequence is cut off afterwards: a window function that numbers the rows of each
# user would sort everything once more.
SEQUENCES_SQL = """
SELECT user_id, event_id, event_time, event_name, item_id, advertiser_id, value
FROM events JOIN active USING (user_id) JOIN days USING (day)
WHERE user_id BETWEEN $first_user AND $last_user
  AND arrival_date <= $last_day
  AND arrival_date <= day
  AND event_time >= window_start
  AND event_time < window_end
ORDER BY number, event_time
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


class SequenceSource(Protocol):
    """Sequences that are made bucket by bucket."""

    @property
    def buckets(self) -> Sequence[UserBucket]:
        """Return the buckets, ascending; the same for the same data."""
        ...

    def batches(self, bucket: UserBucket) -> Iterator[pl.DataFrame]:
        """Return the sequences of a bucket by user_id, some users at a time. Making them opens no table."""
        ...


def of_all_buckets(source: SequenceSource) -> Iterator[pl.DataFrame]:
    """Return the sequences of every bucket by user_id, some users at a time."""
    return (batch for bucket in source.buckets for batch in source.batches(bucket))


@dataclass(frozen=True)
class ComputedSequences:
    """The sequences of the users who were active on some days, computed from the event log.

    Attributes:
        windows: the days, and window_start and window_end of each; without a day there is no user.
        length: the maximum number of events; the newest are kept.
        scratch: the directory of the files that a sort writes.
        memory_gib: memory in GiB for one bucket.
    """

    files: EventFiles
    windows: pl.DataFrame
    length: int
    buckets: Sequence[UserBucket]
    scratch: Path
    memory_gib: float

    def batches(self, bucket: UserBucket) -> Iterator[pl.DataFrame]:
        """Return the sequences of a bucket by user_id, some users at a time: ``SEQUENCE_SCHEMA``, one row a user.

        The lists of a row are equally long, at most ``length``. The memory does not grow with the number of users.
        """
        if self.windows.is_empty():
            return
        with staging(self.scratch, self.memory_gib) as staged:
            self.files.view(staged)
            staged.add("days", self.windows)
            first_day, last_day = self.windows["day"].min(), self.windows["day"].max()
            active = ACTIVE_SQL.format(bucket=bucket.sql())
            staged.execute(active, {"first_day": first_day, "last_day": last_day})
            for first_user, last_user in staged.rows(RANGES_SQL, {"users": USERS_OF_A_SORT}):
                parameters = {"last_day": last_day, "first_user": first_user, "last_user": last_user}
                sorted_events = staged.batches(SEQUENCES_SQL, EVENT_SCHEMA, parameters)
                yield from _of_range(in_full_order(sorted_events, ["user_id", "event_time"], "event_id"), self.length)


def all_sequences(
    tables: Tables, landing: Landing, day: date, *, settings: SequenceSettings, data: DataSettings = DEFAULTS
) -> ComputedSequences:
    """Return the sequence of every user as of the user's last active day on or before ``day``, for a full inference.

    A user's row equals the row of ``active_sequences`` for the user's last active day, so that an incremental inference
    can equal a full one. Raises as ``active_sequences``.
    """
    arrival_days = [arrived for arrived in days_with_arrivals(tables, landing) if arrived <= day]
    return active_sequences(tables, landing, arrival_days, settings=settings, data=data)


def active_sequences(
    tables: Tables,
    landing: Landing,
    days: Sequence[date],
    *,
    settings: SequenceSettings,
    data: DataSettings = DEFAULTS,
) -> ComputedSequences:
    """Return the sequences of the users who were active on any of ``days``.

    Each sequence is as of the last of ``days`` on which its user was active; oldest event first. An event that happened
    after the end of a day makes no user active on this day and is in no sequence. A user whose every visible event lies
    before the look-back window (``settings.lookback_days`` of 24 hours before the end of the day) has no row.

    Raises:
        TableMissing: no events have been ingested.
    """
    tables.require("events")
    ends = [day_end(day, landing.manifest.time_zone) for day in days]
    windows = pl.DataFrame(
        {
            "day": days,
            "window_start": [end - timedelta(days=settings.lookback_days) for end in ends],
            "window_end": ends,
        },
        schema={"day": pl.Date(), "window_start": pl.Datetime("us", "UTC"), "window_end": pl.Datetime("us", "UTC")},
    )
    return ComputedSequences(
        EventFiles.of(tables, landing),
        windows,
        settings.length,
        buckets_of_days(tables, days, data),
        scratch=Path(data.scratch or tables.root),
        memory_gib=data.memory_gib,
    )


def buckets_of_days(tables: Tables, days: Sequence[date], data: DataSettings) -> list[UserBucket]:
    """Return buckets with about ``data.bucket_events`` of the events that arrived on ``days``."""
    arrived = tables.scan("events").filter(pl.col("arrival_date").is_in(days))
    return user_buckets(ceil(int(arrived.select(pl.len()).collect().item()) / data.bucket_events))


def gathered(batches: Iterable[pl.DataFrame], events: int = EVENTS_TO_ENCODE) -> Iterator[pl.DataFrame]:
    """Yield batches of sequences joined until they have ``events`` events: each batch has a fixed cost."""
    held: list[pl.DataFrame] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += int(batch["event_time"].list.len().sum())
        if count >= events:
            yield pl.concat(held)
            held, count = [], 0
    if held:
        yield pl.concat(held)


def _of_range(batches: Iterable[pl.DataFrame], length: int) -> Iterator[pl.DataFrame]:
    """Yield the sequences of sorted events that come in batches."""
    held = pl.DataFrame(schema=EVENT_SCHEMA)
    for batch in batches:
        rows = pl.concat([held, batch])
        going_on = rows["user_id"] == rows["user_id"][-1]  # perhaps in the next batch
        if not going_on.all():
            yield _lists(rows.filter(~going_on), length)
        held = rows.filter(going_on).tail(length)
    if len(held):
        yield _lists(held, length)


def _lists(events: pl.DataFrame, length: int) -> pl.DataFrame:
    """Return a row for each user of ``events``, which are sorted by user, with the user's newest ``length`` events."""
    run = pl.col("user_id").rle_id().set_sorted().alias("run")  # grouping by a sorted number hashes nothing
    grouped = events.with_columns(run).group_by("run", maintain_order=True)
    lists = grouped.agg(pl.col("user_id").first(), pl.exclude("user_id", "run").tail(length))
    return lists.select(list(SEQUENCE_SCHEMA)).cast(SEQUENCE_SCHEMA)  # type: ignore[arg-type]

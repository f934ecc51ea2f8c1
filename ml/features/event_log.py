"""Users' events as flat values plus offsets, and the packed sequences that the encoder reads.

The history of a training example is a slice of the log, never a copy, so further cut-offs copy no events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.hashing import hash_column, known_advertisers
from settings import ONSITE_EVENTS

UNKNOWN_NAME = 0
GAP_BUCKETS = 26  # log2 of minutes up to about 32 years; 0 = no earlier event in the sequence


@dataclass(frozen=True)
class EventLog:
    """Events of all users: user-major, each user's oldest first.

    user_ids   ann           bob
    offsets    0             3        5
    position   0   1   2     3   4
    item       7   8   9     7   8
    seconds    10  20  30    15  25
    """

    user_ids: pl.Series  # [users], text
    offsets: NDArray[np.int64]  # [users + 1]
    item: NDArray[np.int64]  # [events] catalogue row, -1 = none or unknown
    name: NDArray[np.int64]  # [events] code of the event name, 0 = unknown
    advertiser: NDArray[np.int64]  # [events, hashes] buckets
    seconds: NDArray[np.float64]  # [events] event time, seconds since 1970 UTC
    onsite: NDArray[np.bool_] | None = None  # [events] whether the event is a click or conversion of an ad; None: none

    @property
    def users(self) -> int:
        return len(self.offsets) - 1

    @property
    def events(self) -> int:
        return len(self.item)

    @property
    def end(self) -> float:
        """Return the instant just after the newest event, in seconds; 0 without events."""
        return float(np.nextafter(self.seconds.max(), np.inf)) if self.events else 0.0

    @property
    def offsite(self) -> EventLog:
        """Return the log in which no onsite event names an item: the log that is counted.

        Item statistics, the graph, baselines and the items of a user's own history come from this log. The encoder
        reads the log itself.

        >>> log = replace(_drawn_log(), onsite=np.array([False, False, True, False, False]))
        >>> log.offsite.item.tolist()
        [7, 8, -1, 7, 8]
        """
        return self if self.onsite is None else replace(self, item=np.where(self.onsite, -1, self.item))

    def user_of_event(self) -> NDArray[np.int64]:
        """Return the user row of each event [events]."""
        return np.repeat(np.arange(self.users), np.diff(self.offsets))

    def known_until(self, seconds: float) -> NDArray[np.int64]:
        """Return, for each user, the flat position behind the user's last event before ``seconds`` [users].

        >>> log = _drawn_log()
        >>> log.known_until(20).tolist()  # ann's first event, and bob's
        [1, 4]
        """
        before = np.concatenate(([0], np.cumsum(self.seconds < seconds)))
        return self.offsets[:-1] + before[self.offsets[1:]] - before[self.offsets[:-1]]

    def user_rows(self, user_ids: pl.Series) -> NDArray[np.int64]:
        """Return the rows of the given users; -1 for a user without events."""
        return row_numbers(self.user_ids, user_ids)


@dataclass(frozen=True)
class Slices:
    """Sequences as half-open ranges of an event log."""

    start: NDArray[np.int64]  # [sequences]
    end: NDArray[np.int64]  # [sequences]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.end - self.start

    def take(self, rows: NDArray[np.int64]) -> Slices:
        return Slices(self.start[rows], self.end[rows])


def build_event_log(
    events: pl.DataFrame,
    item_ids: pl.Series,
    event_names: list[str],
    *,
    advertiser_buckets: int,
    advertiser_hashes: int,
) -> EventLog:
    """Build an event log from rows sorted by user, then time.

    Args:
        events: user_id, event_time, event_name, item_id, advertiser_id; a user's rows stand together, in time order.
        item_ids: the catalogue; an event's item is its row there.
        event_names: the model's vocabulary; a name's code is its position + 1.
    """
    runs = events["user_id"].rle()
    lengths = runs.struct.field("len").to_numpy()
    return _event_log(
        runs.struct.field("value"),
        lengths,
        events,
        item_ids=item_ids,
        event_names=event_names,
        advertiser_buckets=advertiser_buckets,
        advertiser_hashes=advertiser_hashes,
    )


def event_log_of_sequences(
    sequences: pl.DataFrame,
    item_ids: pl.Series,
    event_names: list[str],
    *,
    advertiser_buckets: int,
    advertiser_hashes: int,
) -> EventLog:
    """Build the event log of a user_sequences table, as ``build_event_log`` builds one from rows.

    Args:
        sequences: a row a user, with lists event_time, event_name, item_id, advertiser_id; no list is empty.
        item_ids, event_names: as ``build_event_log``.
    """
    columns = ["event_time", "event_name", "item_id", "advertiser_id"]
    lengths = sequences["event_time"].list.len().to_numpy()
    events = sequences.select(columns).explode(columns)
    return _event_log(
        sequences["user_id"],
        lengths,
        events,
        item_ids=item_ids,
        event_names=event_names,
        advertiser_buckets=advertiser_buckets,
        advertiser_hashes=advertiser_hashes,
    )


def _event_log(
    user_ids: pl.Series,
    lengths: NDArray[np.unsignedinteger],
    events: pl.DataFrame,
    *,
    item_ids: pl.Series,
    event_names: list[str],
    advertiser_buckets: int,
    advertiser_hashes: int,
) -> EventLog:
    names = pl.DataFrame(
        {"name": event_names, "code": range(1, len(event_names) + 1)}, schema_overrides={"code": pl.Int64}
    )
    onsite = is_onsite(events["event_name"])
    code = events.select(name="event_name").join(names, on="name", how="left", maintain_order="left")["code"]
    return EventLog(
        user_ids=user_ids,
        offsets=np.concatenate(([0], np.cumsum(lengths.astype(np.int64)))),
        item=row_numbers(item_ids, events["item_id"]),
        name=code.fill_null(UNKNOWN_NAME).to_numpy(),
        advertiser=hash_column(known_advertisers(events["advertiser_id"]), advertiser_buckets, advertiser_hashes),
        seconds=to_seconds(events["event_time"]),
        onsite=onsite if onsite.any() else None,
    )


def is_onsite(event_names: pl.Series) -> NDArray[np.bool_]:
    """Return which events are clicks or conversions of ads [events]."""
    return event_names.is_in(ONSITE_EVENTS).fill_null(False).to_numpy()


def offsite_events(events: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a log that are counted: all but the clicks and conversions of ads."""
    return events.filter(pl.Series(~is_onsite(events["event_name"])))


def newest(log: EventLog, users: NDArray[np.int64], end: NDArray[np.int64], length: int) -> Slices:
    """Return, for each of ``users``, the last ``length`` events before the flat position ``end`` [users].

    >>> log = _drawn_log()
    >>> slices = newest(log, np.array([0, 1]), end=log.known_until(31), length=2)
    >>> slices.start.tolist(), slices.end.tolist()
    ([1, 3], [3, 5])
    """
    return Slices(np.maximum(log.offsets[users], end - length), end)


def within_lookback(log: EventLog, users: NDArray[np.int64], slices: Slices, since: float) -> Slices:
    """Return the slices of ``users`` without the events before ``since`` (seconds), as the daily sequences are.

    >>> log, users = _drawn_log(), np.array([0, 1])
    >>> whole = newest(log, users, end=log.known_until(31), length=9)
    >>> within_lookback(log, users, whole, since=20).start.tolist()
    [1, 4]
    """
    return Slices(np.minimum(np.maximum(slices.start, log.known_until(since)[users]), slices.end), slices.end)


@dataclass(frozen=True)
class PackedEvents:
    """Sequences one behind the other, without padding; the oldest event of each comes first."""

    item: NDArray[np.int64]  # [events] catalogue row, -1 = none
    name: NDArray[np.int64]  # [events]
    advertiser: NDArray[np.int64]  # [events, hashes]
    gap: NDArray[np.int64]  # [events] log-bucketed time since the event before
    recency: NDArray[np.int64]  # [events] 0 = newest
    lengths: NDArray[np.int64]  # [sequences] events of each, 0 for an empty one


def pack(log: EventLog, slices: Slices) -> PackedEvents:
    """Gather sequences, one behind the other.

    >>> packed = pack(_drawn_log(), Slices(start=np.array([0, 3]), end=np.array([3, 5])))
    >>> packed.item.tolist(), packed.recency.tolist(), packed.lengths.tolist()
    ([7, 8, 9, 7, 8], [2, 1, 0, 1, 0], [3, 2])
    """
    lengths = slices.lengths
    ends = np.cumsum(lengths)
    flat = np.arange(ends[-1] if len(ends) else 0)
    recency = np.repeat(ends, lengths) - 1 - flat
    flat = flat + np.repeat(slices.start - (ends - lengths), lengths)
    seconds = log.seconds[flat]
    minutes = np.maximum(np.diff(seconds, prepend=seconds[:1]), 0) / 60
    gap = np.minimum(1 + np.log2(1 + minutes).astype(np.int64), GAP_BUCKETS - 1)
    gap[(ends - lengths)[lengths > 0]] = 0
    return PackedEvents(log.item[flat], log.name[flat], log.advertiser[flat], gap, recency, lengths)


def batches_by_length(lengths: NDArray[np.int64], events: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows in order of length, in batches of at most ``events`` events, or of one row.

    An empty sequence counts as one event, so that a batch is bounded.

    >>> [rows.tolist() for rows in batches_by_length(np.array([2, 9, 3, 2]), events=9)]
    [[0, 3, 2], [1]]
    """
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(np.maximum(lengths[order], 1))
    begin = 0
    while begin < len(order):
        before = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, before + events, side="right")))
        yield order[begin:stop]
        begin = stop


def row_numbers(keys: pl.Series, wanted: pl.Series) -> NDArray[np.int64]:
    """Return the position of each wanted value in ``keys`` (unique); -1 where the value is absent or null.

    >>> row_numbers(pl.Series(["a", "b"]), pl.Series(["b", None, "z", "a"])).tolist()
    [1, -1, -1, 0]
    """
    table = pl.DataFrame({"key": keys, "row": np.arange(len(keys))})
    found = wanted.alias("key").to_frame().join(table, on="key", how="left", maintain_order="left")
    return found["row"].fill_null(-1).to_numpy().astype(np.int64)


def _drawn_log() -> EventLog:
    """Return the log that the docstring of ``EventLog`` draws, for the examples."""
    return EventLog(
        user_ids=pl.Series(["ann", "bob"]),
        offsets=np.array([0, 3, 5]),
        item=np.array([7, 8, 9, 7, 8]),
        name=np.ones(5, np.int64),
        advertiser=np.zeros((5, 1), np.int64),
        seconds=np.array([10.0, 20, 30, 15, 25]),
    )


def to_seconds(times: pl.Series) -> NDArray[np.float64]:
    """Convert a UTC datetime column to seconds since 1970; null gives -inf."""
    microseconds = times.dt.timestamp("us").cast(pl.Float64)
    return (microseconds / 1e6).fill_null(float("-inf")).to_numpy()

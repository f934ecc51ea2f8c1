"""The sequence of a user as the store holds it: one list a column, oldest event first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warehouse.online.publication import SEQUENCES
from warehouse.online.records import json_in, json_value, stamp_in
from warehouse.online.store import DamagedRecord, OnlineStore

COLUMNS = ("event_id", "event_time", "event_name", "item_id", "advertiser_id")  # event_time in microseconds
TRIES = 20


class Contended(RuntimeError):
    """Others changed the same user again and again."""


@dataclass(frozen=True)
class Held:
    """The sequence that a store holds of one user.

    Attributes:
        stamp: of the record; None without a record, or for a damaged one.
        events: oldest first; none without a record, or for a damaged one.
    """

    stamp: int | None
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, value: bytes | None) -> Held:
        """Read a record of the namespace. A damaged record holds nothing: its successor begins anew."""
        if value is None:
            return cls(None, [])
        try:
            return cls(stamp_in(value), events_in(json_in(value)))
        except DamagedRecord:
            return cls(None, [])


def known_ids(store: OnlineStore, key: bytes) -> set[str]:
    """Return the event ids of one user's stored sequence."""
    return {event["event_id"] for event in Held.of(store.get(SEQUENCES, key)).events}


def events_in(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the events of a sequence's columns, one dictionary an event."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(columns[name] for name in COLUMNS), strict=True)]


def merged(
    held: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], since: int, length: int
) -> list[dict[str, Any]]:
    """Return the newest ``length`` events of both in the order of the daily sequences: event_time, then event_id.

    Args:
        held, new: events; of two events with one event_id the first counts.
        since: microseconds; earlier events are left out.
    """
    rows: dict[str, dict[str, Any]] = {}
    for event in (*held, *new):
        rows.setdefault(event["event_id"], {name: event.get(name) for name in COLUMNS})
    recent = [row for row in rows.values() if row["event_time"] >= since]
    return sorted(recent, key=lambda row: (row["event_time"], row["event_id"]))[-length:]


def add(
    store: OnlineStore, key: bytes, new: Sequence[Mapping[str, Any]], *, stamp: int, since: int, length: int
) -> tuple[int, list[dict[str, Any]]]:
    """Put events into one user's sequence.

    Returns:
        The sequence's stamp, and its events. The events are empty, and nothing is stored, where the new events change
        nothing: the sequence has them already, or they are too old for the sequence.

    Raises:
        Contended: other writers changed the user's sequence all the time.
    """
    for _ in range(TRIES):
        before = store.get(SEQUENCES, key)
        held = Held.of(before)
        rows = merged(held.events, new, since, length)
        if not rows or {row["event_id"] for row in rows} <= {event["event_id"] for event in held.events}:
            return stamp, []
        after = stamp if held.stamp is None else max(stamp, held.stamp + 1)
        content = {name: [row[name] for row in rows] for name in COLUMNS}
        if store.exchange(SEQUENCES, key, before, json_value(after, content)):
            return after, rows
    raise Contended(f"the sequence of one user was changed by others {TRIES} times; send the event again")

"""Real-time refresh: a conversion changes the user's sequence and state at once.

The next daily run reads the same event from the landing zone and arrives at the same state, as long as the catalogue
that the service has is that of the day; an item that is newer than the catalogue is no item until then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ml.inference import encode_states
from ml.retrieval import NO_ITEM
from ml.sequences import build_event_log, newest
from serving.contracts import Event
from serving.served import Served
from settings import SequenceSettings
from warehouse.online import OnlineStore, user_key
from warehouse.online.publication import SEQUENCES
from warehouse.online.records import StateRecord, json_in, json_value, stamp_in, stamp_of

COLUMNS = ("event_id", "event_time", "event_name", "item_id", "advertiser_id")
TRIES = 20


class Contended(RuntimeError):
    """Others changed the same user again and again."""


def add_all(served: Served, store: OnlineStore, events: Sequence[Event], now: datetime) -> None:
    """Put events of any users into their sequences.

    Raises:
        Contended: as ``add_events``.
    """
    of_user: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        row = event.model_dump(include=set(COLUMNS)) | {"event_time": stamp_of(event.event_time)}
        of_user.setdefault(event.user_id, []).append(row)
    for user_id, rows in of_user.items():
        add_events(served, store, user_id, rows, now)


def add_events(
    served: Served,
    store: OnlineStore,
    user_id: str,
    events: Sequence[Mapping[str, Any]],
    now: datetime,
) -> StateRecord:
    """Put events into a user's sequence, and infer their state anew.

    Args:
        events: ``COLUMNS`` each, ``event_time`` in microseconds. An event_id that the sequence has is left out.

    Raises:
        Contended: the user was changed by others all the time.
    """
    key = user_key(user_id)
    for _ in range(TRIES):
        before = store.get(SEQUENCES, key)
        rows = _merged(json_in(before) if before else None, events, now, served.artifact.settings.sequences)
        stamp = max(stamp_of(now), stamp_in(before) + 1 if before else 0)
        after = json_value(stamp, {name: [row[name] for row in rows] for name in COLUMNS})
        if store.exchange(SEQUENCES, key, before, after):
            record = infer(served, user_id, rows, stamp, now)
            store.put(served.publication.states, [(key, record.to_bytes())])
            return record
    raise Contended(f"the sequence of one user was changed by others {TRIES} times; send the event again")


def catch_up(served: Served, store: OnlineStore, user_id: str, now: datetime) -> StateRecord | None:
    """The state of the stored sequence, put into the store; None where the sequence is gone."""
    key = user_key(user_id)
    sequence = store.get(SEQUENCES, key)
    if sequence is None:
        return None
    rows = _rows(json_in(sequence))
    if not rows:
        return None
    record = infer(served, user_id, rows, stamp_in(sequence), now)
    store.put(served.publication.states, [(key, record.to_bytes())])
    return record


def infer(served: Served, user_id: str, rows: Sequence[Mapping[str, Any]], stamp: int, now: datetime) -> StateRecord:
    """The state of a sequence, oldest event first."""
    artifact, catalogue = served.artifact, served.catalogue
    frame = pl.DataFrame(
        {name: [row[name] for row in rows] for name in COLUMNS[1:]},
        schema={"event_time": pl.Int64, "event_name": pl.String, "item_id": pl.String, "advertiser_id": pl.String},
    ).with_columns(pl.lit(user_id).alias("user_id"), pl.from_epoch("event_time", "us").dt.replace_time_zone("UTC"))
    # Only the items of this sequence are looked up: the catalogue may hold a million.
    items = sorted({row["item_id"] for row in rows if row["item_id"] in catalogue.row_of})
    features = artifact.settings.features
    log = build_event_log(
        frame,
        pl.Series(items, dtype=pl.String),
        artifact.event_names,
        features.advertiser_buckets,
        features.advertiser_hashes,
    )
    of_catalogue = np.array([*(catalogue.row_of[item] for item in items), NO_ITEM])
    log = replace(log, item=of_catalogue[log.item])
    slices = newest(log, np.arange(log.users), log.offsets[1:], artifact.settings.sequences.length)
    states = encode_states(artifact.network, catalogue.tensors, log, slices, artifact.settings.inference)
    return StateRecord(stamp, now.date(), len(rows), frame["event_time"][-1], states[0])


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(columns[name] for name in COLUMNS), strict=True)]


def _merged(
    held: Mapping[str, Sequence[Any]] | None,
    events: Sequence[Mapping[str, Any]],
    now: datetime,
    settings: SequenceSettings,
) -> list[dict[str, Any]]:
    """The newest events of both in the order of the daily sequences: event_time, then event_id."""
    rows = _rows(held) if held else []
    known = {row["event_id"] for row in rows}
    new = {event["event_id"]: {name: event.get(name) for name in COLUMNS} for event in reversed(events)}
    rows += [row for event_id, row in new.items() if event_id not in known]
    since = stamp_of(now - timedelta(days=settings.lookback_days))
    recent = [row for row in rows if row["event_time"] >= since]
    return sorted(recent, key=lambda row: (row["event_time"], row["event_id"]))[-settings.length :]

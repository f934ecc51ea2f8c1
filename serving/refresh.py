"""Real-time refresh: a conversion changes the user's sequence and state at once.

The next daily run reads the same event from the landing zone and arrives at the same state, as long as the catalogue
that the service has is that of the day; an item that is newer than the catalogue is no item until then.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ml.features.event_log import build_event_log, newest
from ml.models.batched_forward import encode_states
from ml.retrieval.lists import NO_ITEM
from serving.contracts import Event
from serving.publication import Served
from warehouse.online import OnlineStore
from warehouse.online.publication import SEQUENCES
from warehouse.online.records import StateRecord, is_damaged, stamp_of
from warehouse.online.sequences import COLUMNS, Held, add
from warehouse.online.store import StoreError, StoreUnreachable

logger = logging.getLogger(__name__)


def add_all(served: Served, store: OnlineStore, events: Sequence[Event], now: datetime) -> bool:
    """Put events of any users into their sequences, and infer the states anew. Returns whether all went well.

    Events that fail are in the landing zone all the same. A failure for one user does not stop the other users, except
    where the store does not answer.
    """
    of_user: dict[bytes, list[dict[str, Any]]] = {}
    for event in events:
        row = event.model_dump(include=set(COLUMNS)) | {"event_time": stamp_of(event.event_time)}
        of_user.setdefault(served.keys.key(event.user_id).encode(), []).append(row)
    settings, refreshed = served.artifact.settings.sequences, True
    since = stamp_of(now - timedelta(days=settings.lookback_days))
    for key, rows in of_user.items():
        try:
            stamp, sequence = add(store, key, rows, stamp=stamp_of(now), since=since, length=settings.length)
            if sequence:
                record = infer(served, sequence, stamp, now)
                _replace_state(served, store, key, record)
        except StoreUnreachable as error:  # for the others, too
            logger.error("users are not refreshed, the daily run will: %s", error)
            return False
        except Exception as error:
            # Where it went wrong, and not the message, which may hold what the user did.
            trace = "".join(traceback.format_tb(error.__traceback__))
            kind = type(error).__name__
            logger.error("a user could not be refreshed, the daily run will (%s)\n%s", kind, trace)
            refreshed = False
    return refreshed


@dataclass(frozen=True)
class CaughtUp:
    """The result of catching up a state that was behind its sequence."""

    state: StateRecord | None  # None where the sequence is gone
    unwritten: bool = False  # the store takes no write: the next request infers the state again


def catch_up(served: Served, store: OnlineStore, key: bytes, now: datetime) -> CaughtUp:
    """Infer the state of the stored sequence, and put the state into the store, if the store takes the write."""
    held = Held.of(store.get(SEQUENCES, key))
    since = stamp_of(now - timedelta(days=served.artifact.settings.sequences.lookback_days))
    events = [event for event in held.events if event["event_time"] >= since]  # another model's may be longer
    if held.stamp is None or not events:
        return CaughtUp(None)
    record = infer(served, events, held.stamp, now)
    try:
        _replace_state(served, store, key, record)
    except StoreError as error:
        logger.error("a state is inferred for each request, because the online store takes no write: %s", error)
        return CaughtUp(record, unwritten=True)
    return CaughtUp(record)


def _replace_state(served: Served, store: OnlineStore, key: bytes, record: StateRecord) -> None:
    """Put a state into the store, also in the place of a damaged state, which has no usable stamp."""
    namespace, value = served.publication.states, record.to_bytes(served.publication.precision)
    before = store.get(namespace, key)
    if before is not None and is_damaged(before):
        store.exchange(namespace, key, before, value)
    else:
        store.put(namespace, [(key, value)])


def infer(served: Served, rows: Sequence[Mapping[str, Any]], stamp: int, now: datetime) -> StateRecord:
    """Return the state of a sequence, whose oldest event comes first."""
    artifact, catalogue = served.artifact, served.catalogue
    frame = pl.DataFrame(
        {name: [row[name] for row in rows] for name in COLUMNS[1:]},
        schema={"event_time": pl.Int64, "event_name": pl.String, "item_id": pl.String, "advertiser_id": pl.String},
    ).with_columns(pl.lit("").alias("user_id"), pl.from_epoch("event_time", "us").dt.replace_time_zone("UTC"))
    # Only the items of this sequence are looked up: the catalogue may hold a million.
    items = sorted({row["item_id"] for row in rows if row["item_id"] in catalogue.row_of})
    features = artifact.settings.features
    log = build_event_log(
        frame,
        pl.Series(items, dtype=pl.String),
        artifact.event_names,
        advertiser_buckets=features.advertiser_buckets,
        advertiser_hashes=features.advertiser_hashes,
    )
    of_catalogue = np.array([*(catalogue.row_of[item] for item in items), NO_ITEM])
    log = replace(log, item=of_catalogue[log.item])
    slices = newest(log, np.arange(log.users), log.offsets[1:], artifact.settings.sequences.length)
    states = encode_states(
        artifact.network, catalogue.tensors, log, slices=slices, settings=artifact.settings.inference
    )
    return StateRecord(stamp, now.date(), len(rows), frame["event_time"][-1], states[0])

"""What the online store knows of one user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ml.features.dataset import demographic_buckets_of
from serving.contracts import Demographics
from settings import ONSITE_EVENTS
from warehouse.online import DamagedRecord, OnlineStore, StateRecord
from warehouse.online.publication import SEQUENCES, USERS, Publication
from warehouse.online.records import json_in, stamp_in

Content = TypeVar("Content")


@dataclass(frozen=True)
class PastEvent:
    """An event of the history."""

    item_id: str | None
    event_name: str
    event_time: datetime


@dataclass(frozen=True)
class KnownUser:
    """Everything about a user that a request needs; empty for somebody unknown."""

    state: StateRecord | None
    is_behind: bool  # the history knows more than the state: events came in while another version took over
    advertisers: list[str]  # best first
    history: list[PastEvent]  # oldest first
    demographics: Demographics
    damaged: tuple[str, ...] = ()  # namespaces whose record cannot be read: it counts as missing

    @property
    def seen(self) -> set[str]:
        """Return the items of the history, but for those of ads alone."""
        offsite = (event for event in self.history if event.event_name not in ONSITE_EVENTS)
        return {event.item_id for event in offsite if event.item_id is not None}


class _Reader:
    """Reads the records of one user, and notes the namespaces in which a record is damaged."""

    def __init__(self, store: OnlineStore, key: bytes) -> None:
        self.store, self.key = store, key
        self.damaged: list[str] = []

    def read(self, namespace: str | None, decode: Callable[[bytes], Content]) -> Content | None:
        """Return the decoded record; None where the namespace has no readable record."""
        try:
            value = None if namespace is None else self.store.get(namespace, self.key)
            return None if value is None else decode(value)
        except DamagedRecord:
            self.damaged.append(str(namespace))
            return None


def read_user(store: OnlineStore, publication: Publication, key: bytes) -> KnownUser:
    """Read a user as of the publication or later. A damaged record counts as none, and is named in the result."""
    reader = _Reader(store, key)
    state = reader.read(publication.states, StateRecord.from_bytes)
    lists = reader.read(publication.advertisers, json_in)
    sequence = reader.read(SEQUENCES, lambda value: (stamp_in(value), json_in(value)))
    demographics = reader.read(USERS, json_in)
    return KnownUser(
        state=state,
        is_behind=sequence is not None and (state is None or state.stamp < sequence[0]),
        advertisers=lists["advertiser_ids"] if lists else [],
        history=_events(sequence[1]) if sequence else [],
        demographics=Demographics.model_construct(**demographics) if demographics else Demographics(),
        damaged=tuple(reader.damaged),
    )


def _events(columns: dict[str, list[Any]]) -> list[PastEvent]:
    rows = zip(*(columns[name] for name in ("item_id", "event_name", "event_time")), strict=True)
    return [PastEvent(item, name, datetime.fromtimestamp(time / 1e6, UTC)) for item, name, time in rows]


@lru_cache(maxsize=10_000)
def buckets_of(demographics: Demographics) -> NDArray[np.int64]:
    """Return the buckets [1, 3] of a person's known demographics."""
    return demographic_buckets_of(demographics.age, demographics.gender, demographics.country)[None]

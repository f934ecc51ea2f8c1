"""What the online store knows of one user."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ml.features.dataset import demographic_buckets_of
from serving.contracts import Demographics
from settings import ONSITE_EVENTS
from warehouse.online import DamagedRecord, OnlineStore, StateRecord
from warehouse.online.publication import SEQUENCES, USERS, Publication
from warehouse.online.records import json_in, stamp_in, unsealed
from warehouse.online.store import STAMP_BYTES

Content = TypeVar("Content")
NOT_KNOWN = Demographics()


@dataclass(frozen=True)
class PastEvent:
    """An event of the history."""

    item_id: str | None
    event_name: str
    event_time: datetime


@dataclass(frozen=True)
class StoredSequence:
    """The sequence of a user, decoded when somebody asks for the events: most requests do not.

    Attributes:
        columns: JSON of the columns, as the store holds them; empty without a sequence.
    """

    columns: bytes = b""

    @property
    def events(self) -> list[PastEvent]:
        """Return the events, oldest first."""
        return [PastEvent(item, name, datetime.fromtimestamp(time / 1e6, UTC)) for item, name, time in self._rows]

    @property
    def seen(self) -> set[str]:
        """Return the items of the events, but for those of ads alone."""
        return {item for item, name, _ in self._rows if item is not None and name not in ONSITE_EVENTS}

    @cached_property
    def _rows(self) -> list[tuple[str | None, str, int]]:
        """Return item, event name and microseconds since 1970 of each event."""
        if not self.columns:
            return []
        columns = json.loads(self.columns)
        return list(zip(*(columns[name] for name in ("item_id", "event_name", "event_time")), strict=True))


@dataclass(frozen=True)
class KnownUser:
    """Everything about a user that a request needs; empty for somebody unknown."""

    state: StateRecord | None
    is_behind: bool  # the history knows more than the state: events came in while another version took over
    advertisers: list[str]  # best first
    sequence: StoredSequence
    demographics: Demographics
    damaged: tuple[str, ...] = ()  # namespaces whose record cannot be read: it counts as missing

    @property
    def history(self) -> list[PastEvent]:
        """Return the events that the store holds, oldest first."""
        return self.sequence.events

    @property
    def seen(self) -> set[str]:
        """Return the items of the history, but for those of ads alone."""
        return self.sequence.seen


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
    sequence = reader.read(SEQUENCES, unsealed)
    demographics = reader.read(USERS, json_in)
    return KnownUser(
        state=state,
        is_behind=sequence is not None and (state is None or state.stamp < stamp_in(sequence)),
        advertisers=lists["advertiser_ids"] if lists else [],
        sequence=StoredSequence(sequence[STAMP_BYTES:]) if sequence else StoredSequence(),
        demographics=Demographics.model_construct(**demographics) if demographics else NOT_KNOWN,
        damaged=tuple(reader.damaged),
    )


@lru_cache(maxsize=10_000)
def buckets_of(demographics: Demographics) -> NDArray[np.int64]:
    """Return the buckets [3] of a person's known demographics."""
    return demographic_buckets_of(demographics.age, demographics.gender, demographics.country)

"""What the online store knows of one user."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.dataset import demographic_buckets
from serving.contracts import Demographics
from warehouse.online import OnlineStore, StateRecord
from warehouse.online.publication import SEQUENCES, USERS, Publication
from warehouse.online.records import json_in, stamp_in


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

    @property
    def seen(self) -> set[str]:
        """Items of the history."""
        return {event.item_id for event in self.history if event.item_id is not None}


def read_user(store: OnlineStore, publication: Publication, key: bytes) -> KnownUser:
    """A user as of the publication or later."""
    value = store.get(publication.states, key)
    state = StateRecord.from_bytes(value) if value else None
    lists = store.get(publication.advertisers, key) if publication.advertisers else None
    sequence, demographics = store.get(SEQUENCES, key), store.get(USERS, key)
    return KnownUser(
        state=state,
        is_behind=sequence is not None and (state is None or state.stamp < stamp_in(sequence)),
        advertisers=json_in(lists)["advertiser_ids"] if lists else [],
        history=_events(json_in(sequence)) if sequence else [],
        demographics=Demographics.model_construct(**json_in(demographics)) if demographics else Demographics(),
    )


def _events(columns: dict[str, list[Any]]) -> list[PastEvent]:
    rows = zip(*(columns[name] for name in ("item_id", "event_name", "event_time")), strict=True)
    return [PastEvent(item, name, datetime.fromtimestamp(time / 1e6, UTC)) for item, name, time in rows]


@lru_cache(maxsize=10_000)
def buckets_of(demographics: Demographics) -> NDArray[np.int64]:
    """Buckets [1, 3] of what is known of somebody."""
    row = {"user_id": "", **demographics.model_dump()}
    schema = {"user_id": pl.String, "age": pl.Int32, "gender": pl.String, "country": pl.String}
    return demographic_buckets(pl.DataFrame([row], schema=schema), pl.Series([""]))

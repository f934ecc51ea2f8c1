"""Sequences of users as the online store holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from serving.users import StoredSequence
from warehouse.online.records import stamp_of

AT = datetime(2024, 1, 1, tzinfo=UTC)


def sequence_of(events: Sequence[tuple[str | None, str]]) -> StoredSequence:
    """The sequence of events (item, event name), all of one instant."""
    columns = {
        "item_id": [item for item, _ in events],
        "event_name": [name for _, name in events],
        "event_time": [stamp_of(AT)] * len(events),
    }
    return StoredSequence(json.dumps(columns).encode())

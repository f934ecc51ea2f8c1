"""A state that is behind its sequence is inferred from what the model may see of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving import refresh
from settings import SequenceSettings
from warehouse.online import LmdbStore
from warehouse.online.publication import SEQUENCES
from warehouse.online.records import json_value, stamp_of
from warehouse.online.sequences import COLUMNS

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(("lookback_days", "seen"), [(60, ["old", "new"]), (30, ["new"]), (1, [])])
def test_events_before_the_models_look_back_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lookback_days: int, seen: list[str]
) -> None:
    """They may be there: another model served before, and looked farther back."""
    times = {"old": stamp_of(NOW - timedelta(days=40)), "new": stamp_of(NOW - timedelta(days=2))}
    events = {name: [None] * 2 for name in COLUMNS} | {"event_id": list(times), "event_time": list(times.values())}
    store = LmdbStore(tmp_path / "online")
    store.put(SEQUENCES, [(b"u", json_value(stamp_of(NOW), events))])
    asked: list[Any] = []

    def infer(_: object, rows: list[dict[str, Any]], *__: object) -> str:
        asked.extend(row["event_id"] for row in rows)
        return "a state"

    monkeypatch.setattr(refresh, "infer", infer)
    monkeypatch.setattr(refresh, "_replace_state", lambda *_: None)
    settings = SimpleNamespace(sequences=SequenceSettings(lookback_days=lookback_days))
    served: Any = SimpleNamespace(artifact=SimpleNamespace(settings=settings))
    caught_up = refresh.catch_up(served, store, b"u", NOW)
    assert asked == seen
    assert (caught_up.state is not None) == bool(seen)
    store.close()

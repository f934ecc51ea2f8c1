"""Records survive the way to bytes and back, one by one and in columns."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from warehouse.online.records import StateRecord, json_in, json_rows, stamp_in, state_rows

NOON = datetime(2026, 3, 2, 12, 30, 15, 123456, UTC)


def test_a_state_survives() -> None:
    record = StateRecord(1_700_000_000_123_456, date(2026, 3, 2), 17, NOON, np.array([1.5, -2, 3e-9], np.float32))
    back = StateRecord.from_bytes(record.to_bytes())
    assert (back.stamp, back.day, back.events, back.last_event_time) == (
        record.stamp,
        record.day,
        record.events,
        record.last_event_time,
    )
    np.testing.assert_array_equal(back.state, record.state)
    assert stamp_in(record.to_bytes()) == record.stamp


def test_columns_are_packed_as_single_records_are() -> None:
    states = pl.DataFrame(
        {
            "user_id": ["ann", "bob"],
            "stamp": [5, 6],
            "day": [date(2026, 3, 2), date(1969, 12, 31)],
            "events": [17, 1],
            "last_event_time": [NOON, datetime(1969, 12, 31, 23, tzinfo=UTC)],
            "state": [[1.0, 2.0], [3.0, 4.0]],
        },
        schema_overrides={"last_event_time": pl.Datetime("us", "UTC"), "state": pl.List(pl.Float32)},
    )
    rows = dict(state_rows(states))
    for row in states.rows(named=True):
        single = StateRecord(
            row["stamp"], row["day"], row["events"], row["last_event_time"], np.array(row["state"], np.float32)
        )
        assert rows[row["user_id"].encode()] == single.to_bytes()
    assert list(state_rows(states.head(0))) == []


def test_json_survives() -> None:
    frame = pl.DataFrame({"user_id": ["ann", "bob"], "stamp": [5, -6], "items": [["é", None], []], "age": [None, 3]})
    rows = dict(json_rows(frame, ("items", "age")))
    assert json_in(rows[b"ann"]) == {"items": ["é", None], "age": None}
    assert json_in(rows[b"bob"]) == {"items": [], "age": 3}
    assert [stamp_in(rows[user.encode()]) for user in ("ann", "bob")] == [5, -6]
    assert dict(json_rows(frame.head(0), ("age",))) == {}

"""Records survive the way to bytes and back, one by one and in columns."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from settings import Precision
from warehouse.online.records import StateRecord, json_in, json_rows, stamp_in, state_rows

NOON = datetime(2026, 3, 2, 12, 30, 15, 123456, UTC)


@pytest.mark.parametrize(("precision", "smallest"), [(Precision.float32, 3e-9), (Precision.float16, 6e-8)])
def test_a_state_survives(precision: Precision, smallest: float) -> None:
    record = StateRecord(1_700_000_000_123_456, date(2026, 3, 2), 17, NOON, np.array([1.5, -2, 0], np.float32))
    record.state[2] = np.float32(np.float16(smallest)) if precision is Precision.float16 else smallest
    back = StateRecord.from_bytes(record.to_bytes(precision))
    assert (back.stamp, back.day, back.events, back.last_event_time) == (
        record.stamp,
        record.day,
        record.events,
        record.last_event_time,
    )
    np.testing.assert_array_equal(back.state, record.state)
    assert stamp_in(record.to_bytes(precision)) == record.stamp


@pytest.mark.parametrize("precision", Precision)
def test_columns_are_packed_as_single_records_are(precision: Precision) -> None:
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
    rows = dict(state_rows(states, precision))
    for row in states.rows(named=True):
        single = StateRecord(
            row["stamp"], row["day"], row["events"], row["last_event_time"], np.array(row["state"], np.float32)
        )
        assert rows[row["user_id"].encode()] == single.to_bytes(precision)
    assert list(state_rows(states.head(0), precision)) == []


def test_json_survives() -> None:
    frame = pl.DataFrame({"user_id": ["ann", "bob"], "stamp": [5, -6], "items": [["é", None], []], "age": [None, 3]})
    rows = dict(json_rows(frame, ("items", "age")))
    assert json_in(rows[b"ann"]) == {"items": ["é", None], "age": None}
    assert json_in(rows[b"bob"]) == {"items": [], "age": 3}
    assert [stamp_in(rows[user.encode()]) for user in ("ann", "bob")] == [5, -6]
    assert dict(json_rows(frame.head(0), ("age",))) == {}


def test_half_precision_takes_half_the_room_and_is_never_infinite() -> None:
    record = StateRecord(0, date(2026, 3, 2), 1, NOON, np.array([1e9, -1e9, 0.1] * 100, np.float32))
    whole, half = (record.to_bytes(precision) for precision in (Precision.float32, Precision.float16))
    assert len(whole) - len(half) == 2 * 300
    state = StateRecord.from_bytes(half).state
    assert np.isfinite(state).all()
    np.testing.assert_allclose(state[2::3], 0.1, rtol=5e-4)

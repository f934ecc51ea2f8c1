"""What is on the shelves, as bytes. A user's key is that of the tables (``warehouse.identity``)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.online.store import STAMP, STAMP_BYTES

EPOCH = date(1970, 1, 1).toordinal()
# Stamp, the day of the inference, events in the sequence, time of the newest of them; the state follows.
STATE_HEADER = struct.Struct(">qiiq")


def stamp_of(instant: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return round(instant.timestamp() * 1e6)


@dataclass(frozen=True)
class StateRecord:
    """A user's state and what it knows."""

    stamp: int  # microseconds; every event known by then is in it
    day: date  # of the inference
    events: int  # length of the encoded sequence
    last_event_time: datetime
    state: NDArray[np.float32]  # [size]

    def to_bytes(self) -> bytes:
        newest = stamp_of(self.last_event_time)
        header = STATE_HEADER.pack(self.stamp, self.day.toordinal() - EPOCH, self.events, newest)
        return header + self.state.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, value: bytes) -> StateRecord:
        stamp, day, events, newest = STATE_HEADER.unpack_from(value)
        return cls(
            stamp=stamp,
            day=date.fromordinal(day + EPOCH),
            events=events,
            last_event_time=datetime.fromtimestamp(newest / 1e6, UTC),
            state=np.frombuffer(value, "<f4", offset=STATE_HEADER.size).astype(np.float32),
        )


def state_rows(states: pl.DataFrame) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of states (user_id, stamp, day, events, last_event_time, state), as ``StateRecord`` writes them.

    Packed a column at a time, in the order of keys, in which a tree is written five times as fast.
    """
    if not len(states):
        return
    width = len(states["state"][0])
    record = np.dtype(
        [("stamp", ">i8"), ("day", ">i4"), ("events", ">i4"), ("newest", ">i8"), ("state", "<f4", (width,))]
    )
    packed = np.zeros(len(states), record)
    packed["stamp"] = states["stamp"].to_numpy()
    packed["day"] = states["day"].cast(pl.Int32).to_numpy()
    packed["events"] = states["events"].to_numpy()
    packed["newest"] = states["last_event_time"].dt.epoch("us").to_numpy()
    packed["state"] = states["state"].explode().to_numpy().reshape(len(states), width)
    content, size = packed.tobytes(), record.itemsize
    assert size == STATE_HEADER.size + 4 * width
    keys = states["user_id"].to_list()
    for row in states["user_id"].arg_sort().to_list():
        yield keys[row].encode(), content[row * size : (row + 1) * size]


def json_rows(frame: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of ``frame`` (user_id, stamp and the named columns): the stamp, then the columns as JSON."""
    texts = frame.select("user_id", "stamp", text=pl.struct(*columns).struct.json_encode()).sort("user_id")
    for key, stamp, text in texts.iter_rows():
        yield key.encode(), STAMP.pack(stamp) + text.encode()


def json_value(stamp: int, content: Mapping[str, Any]) -> bytes:
    """One value as ``json_rows`` makes them."""
    return STAMP.pack(stamp) + json.dumps(content, ensure_ascii=False).encode()


def json_in(value: bytes) -> dict[str, Any]:
    """What ``json_rows`` wrote after the stamp."""
    content: dict[str, Any] = json.loads(value[STAMP_BYTES:])
    return content


def stamp_in(value: bytes) -> int:
    """The stamp that a value begins with."""
    return int.from_bytes(value[:STAMP_BYTES], "big", signed=True)

"""The records in the namespaces, as bytes. A user has the same key as in the tables (``warehouse.identity``).

Every record ends with the CRC-32 of the bytes before, big-endian: a reader of a record can check that it is whole.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from settings import Precision
from warehouse.online.store import STAMP, STAMP_BYTES, DamagedRecord

RECORD_FORMAT = 2
"""Raised by whatever change makes stored records unreadable; the next publication then writes all of them anew."""

PACKED_ROWS = 10_000
CHECKSUM = struct.Struct(">I")
EPOCH = date(1970, 1, 1).toordinal()
# Stamp, the day of the inference, events in the sequence, time of the newest of them, precision; the state and the
# checksum follow.
STATE_HEADER = struct.Struct(">qiiqc")
NUMBERS = {Precision.float32: "<f4", Precision.float16: "<f2"}


def sealed(content: bytes) -> bytes:
    """Append the checksum to the content of a record."""
    return content + CHECKSUM.pack(zlib.crc32(content))


def unsealed(value: bytes) -> bytes:
    """Return the content of a record without its checksum.

    Raises:
        DamagedRecord: the checksum does not fit the content.
    """
    content, checksum = value[: -CHECKSUM.size], value[-CHECKSUM.size :]
    if len(content) < STAMP_BYTES or CHECKSUM.pack(zlib.crc32(content)) != checksum:
        raise DamagedRecord(f"a record of {len(value)} bytes does not fit its checksum")
    return content


def is_damaged(value: bytes) -> bool:
    """Whether a record does not fit its checksum."""
    try:
        unsealed(value)
    except DamagedRecord:
        return True
    return False


def stamp_of(instant: datetime) -> int:
    """Return ``instant`` in microseconds since 1970 UTC."""
    return round(instant.timestamp() * 1e6)


@dataclass(frozen=True)
class StateRecord:
    """A user's state and the events that the state knows."""

    stamp: int  # microseconds; every event known by then is in it
    day: date  # of the inference
    events: int  # length of the encoded sequence
    last_event_time: datetime
    state: NDArray[np.float32]  # [size]

    def to_bytes(self, precision: Precision) -> bytes:
        newest, numbers = stamp_of(self.last_event_time), NUMBERS[precision]
        code = numbers[-1].encode()
        header = STATE_HEADER.pack(self.stamp, self.day.toordinal() - EPOCH, self.events, newest, code)
        return sealed(header + _within(self.state, numbers).tobytes())

    @classmethod
    def from_bytes(cls, value: bytes) -> StateRecord:
        """Read a record.

        Raises:
            DamagedRecord: the value is not what ``to_bytes`` made.
        """
        content = unsealed(value)
        stamp, day, events, newest, code = STATE_HEADER.unpack_from(content)
        return cls(
            stamp=stamp,
            day=date.fromordinal(day + EPOCH),
            events=events,
            last_event_time=datetime.fromtimestamp(newest / 1e6, UTC),
            state=np.frombuffer(content, f"<f{code.decode()}", offset=STATE_HEADER.size).astype(np.float32),
        )


def state_rows(states: pl.DataFrame, precision: Precision) -> Iterator[tuple[bytes, memoryview]]:
    """Yield keys and values of states (user_id, stamp, day, events, last_event_time, state), as ``StateRecord`` writes.

    The values are packed some thousands at a time, a column at a time, in the order of keys: the store writes a tree
    fastest in that order.
    """
    if not len(states):
        return
    width = len(states["state"][0])
    numbers = NUMBERS[precision]
    header = [("stamp", ">i8"), ("day", ">i4"), ("events", ">i4"), ("newest", ">i8"), ("code", "S1")]
    record = np.dtype([*header, ("state", numbers, (width,)), ("checksum", ">u4")])
    assert record.itemsize == STATE_HEADER.size + np.dtype(numbers).itemsize * width + CHECKSUM.size
    vectors = states["state"].explode().to_numpy().reshape(len(states), width)
    order = states["user_id"].arg_sort()
    for begin in range(0, len(states), PACKED_ROWS):
        chosen = order.slice(begin, PACKED_ROWS)
        rows = states.select("user_id", "stamp", "day", "events", "last_event_time")[chosen]
        packed = np.empty(len(rows), record)
        packed["stamp"] = rows["stamp"].to_numpy()
        packed["day"] = rows["day"].cast(pl.Int32).to_numpy()
        packed["events"] = rows["events"].to_numpy()
        packed["newest"] = rows["last_event_time"].dt.epoch("us").to_numpy()
        packed["code"] = numbers[-1].encode()
        packed["state"] = _within(vectors[chosen.to_numpy()], numbers)
        packed["checksum"] = _checksums(packed)
        content, size = memoryview(packed.tobytes()), record.itemsize
        for row, key in enumerate(rows["user_id"].to_list()):
            yield key.encode(), content[row * size : (row + 1) * size]


def _checksums(packed: NDArray[Any]) -> list[int]:
    """Return the checksum of each record, over all bytes of the record before its checksum."""
    content, size = memoryview(packed.tobytes()), packed.itemsize
    return [zlib.crc32(content[start : start + size - CHECKSUM.size]) for start in range(0, len(content), size)]


def _within(state: NDArray[np.float32], numbers: str) -> NDArray[Any]:
    """Return states in fewer bits; a value too large for these bits becomes the largest number."""
    limit = np.finfo(numbers).max
    return np.clip(state, -limit, limit).astype(numbers)


def json_rows(frame: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of ``frame`` (user_id, stamp, the named columns): stamp, the columns as JSON, checksum."""
    texts = frame.select("user_id", "stamp", text=pl.struct(*columns).struct.json_encode()).sort("user_id")
    for key, stamp, text in texts.iter_rows():
        yield key.encode(), sealed(STAMP.pack(stamp) + text.encode())


def json_value(stamp: int, content: Mapping[str, Any]) -> bytes:
    """Return one value as ``json_rows`` makes values."""
    return sealed(STAMP.pack(stamp) + json.dumps(content, ensure_ascii=False).encode())


def json_in(value: bytes) -> dict[str, Any]:
    """Return the columns that ``json_rows`` wrote after the stamp.

    Raises:
        DamagedRecord: the value is not what ``json_rows`` or ``json_value`` made.
    """
    content: dict[str, Any] = json.loads(unsealed(value)[STAMP_BYTES:])
    return content


def stamp_in(value: bytes) -> int:
    """Return the stamp that a value begins with."""
    return int.from_bytes(value[:STAMP_BYTES], "big", signed=True)

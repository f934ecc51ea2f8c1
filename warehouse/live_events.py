"""Events that arrive one by one: appended to the landing zone, which is what makes them durable.

They lie in the folder of the day they arrive, as every export does, one file a process; the daily run ingests them like
any other. A line is written in one piece and is on the disk before anybody is told that the event was taken. An event
that is sent again to the same process is not written again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from warehouse.contracts import KEYS, LandingTable
from warehouse.landing import Landing

REMEMBERED = 50_000  # of the newest events, 16 bytes each


@dataclass(frozen=True)
class Appended:
    """The result of ``LiveEvents.append``.

    Attributes:
        day: the day on which the events arrived.
        written: how many of the events are new lines; the others had been written before.
    """

    day: date
    written: int


class LiveEvents:
    """One writer, of one process."""

    def __init__(self, landing: Landing) -> None:
        self.landing = landing
        self._name = f"live-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        self._writing = threading.Lock()
        self._written: dict[bytes, None] = {}  # digests of events that are on the disk, oldest first

    def append(self, events: Sequence[Mapping[str, Any]], arrived: datetime) -> Appended:
        """Append events that arrived together, except events that this writer has written before.

        Raises:
            OSError: the disk is full or cannot be written; none of the events counts as taken.
            ManifestError: the manifest of the landing zone, which says where days begin, breaks a rule; none of the
                events counts as taken.
        """
        day = arrived.astimezone(ZoneInfo(self.landing.manifest.time_zone)).date()
        with self._writing:
            new = {digest: event for event in events if (digest := _digest(event)) not in self._written}
            if new:
                self._write(self.landing.folder(LandingTable.events, day), list(new.values()))
                self._remember(new)
        return Appended(day, len(new))

    def _write(self, folder: Path, events: Sequence[Mapping[str, Any]]) -> None:
        lines = (json.dumps(dict(event), default=str, ensure_ascii=False, allow_nan=False) + "\n" for event in events)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(folder / self._name)
        try:
            _write_whole(descriptor, "".join(lines).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remember(self, digests: Iterable[bytes]) -> None:
        self._written |= dict.fromkeys(digests)
        for oldest in list(self._written)[: max(0, len(self._written) - REMEMBERED)]:
            del self._written[oldest]


def _digest(event: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that tell an event apart from other events."""
    key = json.dumps([event[name] for name in KEYS[LandingTable.events]])
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _opened(path: Path) -> int:
    """Open the file to append to it, and lock the file against a process that rewrites the file to forget a user."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # another file has taken its place


def _write_whole(descriptor: int, content: bytes) -> None:
    """Write the whole content, or leave the file as it was."""
    before = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
    except OSError:
        os.ftruncate(descriptor, before)
        raise

"""Events that arrive one by one: appended to the landing zone, which is what makes them durable.

They lie in the folder of the day they arrive, as every export does, one file a process; the daily run ingests them like
any other. A line is written in one piece and is on the disk before anybody is told that the event was taken.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from warehouse.contracts import LandingTable
from warehouse.landing import Landing


class LiveEvents:
    """One writer, of one process."""

    def __init__(self, landing: Landing) -> None:
        self.landing = landing
        self._name = f"live-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        self._writing = threading.Lock()

    def append(self, events: Sequence[Mapping[str, Any]], arrived: datetime) -> date:
        """Append events that arrived together. Returns the day of arrival.

        Raises:
            OSError: the disk is full or cannot be written; none of the events counts as taken.
        """
        day = arrived.astimezone(ZoneInfo(self.landing.manifest.time_zone)).date()
        folder = self.landing.folder(LandingTable.events, day)
        lines = "".join(
            json.dumps(dict(event), default=str, ensure_ascii=False, allow_nan=False) + "\n" for event in events
        )
        if not events:
            return day
        with self._writing:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = _opened(folder / self._name)
            try:
                _write_whole(descriptor, lines.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return day


def _opened(path: Path) -> int:
    """The file, to append to, held against whoever rewrites it to forget a user."""
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
    """Write everything, or leave the file as it was."""
    before = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
    except OSError:
        os.ftruncate(descriptor, before)
        raise

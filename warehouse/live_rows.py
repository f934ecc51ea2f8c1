"""Rows that arrive one by one: appended to the landing zone, which is what makes them durable.

Events, labels of raters, reports of dissatisfaction and sampled candidates come in like this. The rows lie in the
folder of the day they arrive, as every export does, one file a process and table; the daily run ingests them like any
other. A line is written in one piece and is on the disk before anybody is told that the row was taken. A row that is
sent again to the same process is not written again.
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
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from warehouse.contracts import KEYS, LandingTable
from warehouse.landing import Landing

LIVE_FILES = "live-*.jsonl"
"""The names of the files of all processes, as a pattern."""

REMEMBERED = 50_000  # of the newest rows of each table, 16 bytes each


@dataclass(frozen=True)
class Appended:
    """The result of ``LiveRows.append``.

    Attributes:
        day: the day on which the rows arrived.
        written: how many of the rows are new lines; the others had been written before.
    """

    day: date
    written: int


class LiveRows:
    """One writer, of one process."""

    def __init__(self, landing: Landing) -> None:
        self.landing = landing
        self._name = f"live-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        self._writing = threading.Lock()
        # Digests of rows that are on the disk, oldest first, by table: samples of a hundred candidates would push
        # events out of a common memory in minutes.
        self._written: dict[LandingTable, dict[bytes, None]] = {table: {} for table in LandingTable}

    def append(self, table: LandingTable, rows: Sequence[Mapping[str, Any]], arrived: datetime) -> Appended:
        """Append rows of a table that arrived together, except rows that this writer has written before.

        Two rows with one key (``KEYS``) are the same row.

        Raises:
            OSError: the disk is full or cannot be written; none of the rows counts as taken.
            ManifestError: the manifest of the landing zone, which says where days begin, breaks a rule; none of the
                rows counts as taken.
        """
        day = self.day_of(arrived)
        with self._writing:
            new = {digest: row for row in rows if (digest := _digest(table, row)) not in self._written[table]}
            if new:
                self._write(self.landing.folder(table, day), list(new.values()))
                self._remember(table, new)
        return Appended(day, len(new))

    def day_of(self, arrived: datetime) -> date:
        """Return the day on which rows of an instant arrive.

        Raises:
            ManifestError: as ``append``.
        """
        return arrived.astimezone(ZoneInfo(self.landing.manifest.time_zone)).date()

    def _write(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = (json.dumps(dict(row), default=str, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(folder / self._name)
        try:
            _write_whole(descriptor, "".join(lines).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remember(self, table: LandingTable, digests: Iterable[bytes]) -> None:
        written = self._written[table]
        written |= dict.fromkeys(digests)
        for oldest in list(islice(written, max(0, len(written) - REMEMBERED))):
            del written[oldest]


def _digest(table: LandingTable, row: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that tell a row apart from other rows."""
    key = json.dumps([table, *(row[name] for name in KEYS[table])])
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

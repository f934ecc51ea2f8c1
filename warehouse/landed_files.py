"""The files of an arrival: their names, sizes and digests, and how two lists of them differ.

A file is hashed (BLAKE2b, RFC 7693) block by block. A file whose size, time of last write and time of last change of
state (the inode's ctime, which no program can set) are those of an earlier look has the digest of that look. Two files
are equal only if their digests are. A file that changed within ``_CLOCK_TICK_NS`` before it was hashed is hashed again
at the next look: another write within one tick of the file system's clock would leave no trace in its times.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from warehouse.contracts import LandingTable
from warehouse.landing import Landing

_CLOCK_TICK_NS = 2_000_000_000
_BLOCK_BYTES = 2**20
_DIGEST_BYTES = 20
_NEVER = 0  # a time of change that no file has


@dataclass(frozen=True)
class LandedFile:
    """One file as it was when it was hashed.

    Attributes:
        name: within the folder of the arrival.
        bytes: size.
        written_ns: time of the last write, nanoseconds since 1970.
        changed_ns: time of the last change of the inode, nanoseconds since 1970; 0 where it proves nothing.
        digest: BLAKE2b of the content, hexadecimal.
    """

    name: str
    bytes: int
    written_ns: int
    changed_ns: int
    digest: str


class ChangeKind(StrEnum):
    """The kind of a file's change after its day ran."""

    came = "came"
    changed = "changed"
    went = "went away"


@dataclass(frozen=True)
class FileChange:
    """A file that is not as it was when its day ran."""

    kind: ChangeKind
    path: Path

    def __str__(self) -> str:
        return f"{self.path} {self.kind.value}"


def files_of(landing: Landing, table: LandingTable, day: date | None, known: Iterable[LandedFile]) -> list[LandedFile]:
    """Return the data files of an arrival in name order; a missing folder has none.

    Args:
        landing: the landing zone.
        table: which landing table.
        day: the arrival day, or None for the history.
        known: the files of an earlier look, whose digests are taken over where the file was not touched since.
    """
    earlier = {file.name: file for file in known}
    found = (_look_at(path, earlier.get(path.name)) for path in landing.files(table, day))
    return [file for file in found if file is not None]


def version_of(files: Iterable[LandedFile]) -> str:
    """Return a digest of the names and contents of an arrival's files; the empty text where there is no file."""
    named = sorted((file.name, file.digest) for file in files)
    return digest_of(part for pair in named for part in pair) if named else ""


def digest_of(parts: Iterable[str]) -> str:
    """Return one digest of several texts, in their order, hexadecimal."""
    hashed = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        encoded = os.fsencode(part)
        hashed.update(len(encoded).to_bytes(8, "little") + encoded)
    return hashed.hexdigest()


def changes(folder: Path, before: Sequence[LandedFile], now: Sequence[LandedFile]) -> list[FileChange]:
    """Return how the files of an arrival differ from an earlier look, in name order."""
    old, new = ({file.name: file.digest for file in files} for files in (before, now))
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(FileChange(ChangeKind.came, folder / name))
        elif name not in new:
            found.append(FileChange(ChangeKind.went, folder / name))
        elif old[name] != new[name]:
            found.append(FileChange(ChangeKind.changed, folder / name))
    return found


def _look_at(path: Path, known: LandedFile | None) -> LandedFile | None:
    """Return the file in its present state; None where the file has gone meanwhile."""
    now = time.time_ns()
    try:
        found = path.stat()
        if known and (known.bytes, known.written_ns, known.changed_ns) == (
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        ):
            return known
        settled = found.st_ctime_ns < now - _CLOCK_TICK_NS
        digest = _hash_settled(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if settled else _hash(path)
    except FileNotFoundError:
        return None
    return LandedFile(path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns if settled else _NEVER, digest)


@lru_cache(maxsize=100_000)
def _hash_settled(path: Path, size: int, written_ns: int, changed_ns: int) -> str:
    """Return the digest of a file, hashed once for each state: the sensor looks at every file twice a minute."""
    del size, written_ns, changed_ns
    return _hash(path)


def _hash(path: Path) -> str:
    hashed = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hashed.update(block)
    return hashed.hexdigest()

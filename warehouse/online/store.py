"""What an online store does, whichever database it is.

A store holds *shelves*: maps from a key to bytes, one shelf for each kind of record and model version, so that two
versions never meet. Beside them stands one *sign*, a few bytes that say what is served now; it changes in one step.
A version is made visible by filling its shelves first and turning the sign last: whoever is killed in between leaves
what was served before as it was.

Every method raises ``StoreUnreachable`` where the store does not answer, and ``StoreUnwritable`` where it answers reads
only.

Every value begins with a stamp: eight bytes, big-endian, the newest instant (microseconds since 1970 UTC) whose events
it knows. Of two values of a key the one with the later stamp stays, so that a daily publication does not undo what an
event of this morning has told.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Protocol

Value = bytes | memoryview
STAMP = struct.Struct(">q")
STAMP_BYTES = STAMP.size


class StoreError(RuntimeError):
    """The online store fails; the message says how and what to do."""


class StoreUnreachable(StoreError):
    """The online store cannot be opened or does not answer."""


class StoreUnwritable(StoreUnreachable):
    """The online store answers reads and takes no write: the disk is full or read-only."""


class StoreDamaged(StoreUnreachable):
    """The online store lacks what its sign promises, or holds records of another format."""


class DamagedRecord(StoreError):
    """One value, or the page that holds it, is not what was written."""


class NothingPublished(LookupError):
    """There is nothing to answer from yet; says what to do."""


class OnlineStore(Protocol):
    """A place that publications are written to and the service reads from, by several processes at once."""

    def put(self, shelf: str, rows: Iterable[tuple[bytes, Value]]) -> int:
        """Insert or replace values, each unless the shelf holds a later one. Returns how many were stored.

        Durable when it returns; after a crash in between any part of the rows may be stored, each of them whole.
        """
        ...

    def exchange(self, shelf: str, key: bytes, before: bytes | None, after: bytes) -> bool:
        """Replace the value of a key if it still is ``before`` (None: there is none). Returns whether it was."""
        ...

    def get(self, shelf: str, key: bytes) -> bytes | None:
        """Return the value of a key; None where there is none, or no such shelf.

        Raises:
            DamagedRecord: the value cannot be read, others can.
        """
        ...

    def remove(self, shelf: str, keys: Iterable[bytes]) -> int:
        """Forget keys. Returns how many there were."""
        ...

    def count(self, shelf: str) -> int:
        """Keys on a shelf; 0 where there is no such shelf."""
        ...

    def shelves(self) -> list[str]:
        """The shelves that exist, in name order."""
        ...

    def clear(self, shelf: str) -> None:
        """Remove a shelf and all on it."""
        ...

    def check(self, shelves: Iterable[str]) -> None:
        """Check that shelves which were filled are there, and as long as they were written.

        Raises:
            StoreDamaged: one of them is missing or cut off.
        """
        ...

    def sign(self) -> bytes | None:
        """What is served now; None before the first publication."""
        ...

    def turn_sign(self, content: bytes) -> None:
        """Say what is served from now on. A reader sees the old or the new, never a part."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

"""The protocol of online stores, for every database.

A store holds *namespaces*: maps from a key to bytes, one namespace for each kind of record and model version, so that
two versions never meet. Beside them stands one *pointer*: a few bytes that name the publication that is served now. The
pointer changes in one step. A publisher fills the namespaces of a version first and moves the pointer last: a publisher
that is killed in between leaves the earlier publication as it was.

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
    """The online store lacks what its pointer promises, or holds records of another format."""


class DamagedRecord(StoreError):
    """One value, or the page that holds the value, differs from the written bytes."""


class NothingPublished(LookupError):
    """There is no publication to answer from yet; the message says what to do."""


class OnlineStore(Protocol):
    """A place that publications are written to and the service reads from, by several processes at once."""

    def put(self, namespace: str, rows: Iterable[tuple[bytes, Value]]) -> int:
        """Insert or replace values, each unless the namespace holds a later one. Return how many were stored.

        The rows are durable when the call returns; after a crash before that any part of the rows may be stored, each
        row whole.
        """
        ...

    def exchange(self, namespace: str, key: bytes, before: bytes | None, after: bytes) -> bool:
        """Replace the value of a key if the value still is ``before`` (None: no value). Return whether it was."""
        ...

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """Return the value of a key; None where the key or the namespace does not exist.

        Raises:
            DamagedRecord: the value cannot be read; other values can.
        """
        ...

    def everything(self, namespace: str) -> dict[bytes, bytes]:
        """Return all values of a namespace by key; empty where the namespace does not exist. For small values.

        Raises:
            DamagedRecord: a page of the namespace cannot be read.
        """
        ...

    def remove(self, namespace: str, keys: Iterable[bytes]) -> int:
        """Remove keys. Return how many of the keys there were."""
        ...

    def count(self, namespace: str) -> int:
        """Return the number of keys in a namespace; 0 where there is no such namespace."""
        ...

    def namespaces(self) -> list[str]:
        """Return the namespaces that exist, in name order."""
        ...

    def clear(self, namespace: str) -> None:
        """Remove a namespace and all its keys."""
        ...

    def check(self, namespaces: Iterable[str]) -> None:
        """Check that filled namespaces exist, and are as long as they were written.

        Raises:
            StoreDamaged: a namespace is missing or cut off.
        """
        ...

    def current(self) -> bytes | None:
        """Return the pointer; None before the first publication."""
        ...

    def switch(self, content: bytes) -> None:
        """Set the pointer. A reader sees the old or the new pointer, never a part."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

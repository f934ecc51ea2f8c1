"""The store that a setting names."""

from __future__ import annotations

from warehouse.home import Home, write_atomically
from warehouse.online.lmdb_store import LmdbStore
from warehouse.online.store import OnlineStore

LMDB = "lmdb"


RECORD = "online.store"  # a file of the home


def record_store(home: Home, name: str) -> None:
    """Record in the home the store that the home publishes to."""
    if recorded_store(home) != without_password(name):
        write_atomically(home.root / RECORD, without_password(name).encode())


def recorded_store(home: Home) -> str | None:
    """Return the store that the home publishes to, without a password; None before the first publication."""
    path = home.root / RECORD
    return path.read_text() if path.is_file() else None


def without_password(name: str) -> str:
    """Return a store's name without its password, as it may be shown.

    >>> without_password("redis://user:secret@host:6379/0")
    'redis://host:6379/0'
    """
    scheme, separator, rest = name.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def open_store(name: str, home: Home) -> OnlineStore:
    """Return the store of ``online.store``: ``lmdb`` (in the home) or the address of a Redis server (``redis://…``).

    Raises:
        StoreUnreachable: the server does not answer.
        ValueError: the name is neither of them.
    """
    if name == LMDB:
        return LmdbStore(home.online)
    if name.startswith(("redis://", "rediss://", "unix://")):
        from warehouse.online.redis_store import RedisStore  # a home without a server needs no client

        return RedisStore(name)
    raise ValueError(f"online.store is {name!r}: set it to {LMDB!r} or to the address of a Redis server (redis://host)")

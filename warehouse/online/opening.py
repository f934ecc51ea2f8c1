"""Which store a setting names."""

from __future__ import annotations

from warehouse.home import Home
from warehouse.online.lmdb_store import LmdbStore
from warehouse.online.redis_store import RedisStore
from warehouse.online.store import OnlineStore

LMDB = "lmdb"


def open_store(name: str, home: Home) -> OnlineStore:
    """The store of ``online.store``: ``lmdb`` (in the home) or the address of a Redis server (``redis://…``).

    Raises:
        StoreUnreachable: it does not answer.
        ValueError: neither of them.
    """
    if name == LMDB:
        return LmdbStore(home.online)
    if name.startswith(("redis://", "rediss://", "unix://")):
        return RedisStore(name)
    raise ValueError(f"online.store is {name!r}: set it to {LMDB!r} or to the address of a Redis server (redis://host)")

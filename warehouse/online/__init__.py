"""The online store: what the candidate service reads at request time, by user."""

from warehouse.online.lmdb_store import LmdbStore
from warehouse.online.open import open_store
from warehouse.online.records import StateRecord
from warehouse.online.store import DamagedRecord, NothingPublished, OnlineStore, StoreDamaged, StoreUnreachable

__all__ = [
    "DamagedRecord",
    "LmdbStore",
    "NothingPublished",
    "OnlineStore",
    "StateRecord",
    "StoreDamaged",
    "StoreUnreachable",
    "open_store",
]

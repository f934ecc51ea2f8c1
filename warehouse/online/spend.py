"""The counters of what ads spend: one for each ad and day of the log, in the online store.

A counter holds the total of the day so far and only rises: a total that is sent twice, or late, changes nothing. The
value begins with the total in millionths, as other records begin with a stamp, so a store keeps the larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date

from warehouse.online.records import is_damaged, sealed, stamp_in, unsealed
from warehouse.online.store import STAMP, OnlineStore

MAXIMUM_AMOUNT = 1e12  # of an ad on a day
_PREFIX = "spend-"
_MILLION = 10**6


def spend_namespace(day: date) -> str:
    """Return the namespace of the counters of a day."""
    return f"{_PREFIX}{day.isoformat()}"


def spend_day(namespace: str) -> date | None:
    """Return the day whose counters a namespace has; None for a namespace of other records."""
    return date.fromisoformat(namespace.removeprefix(_PREFIX)) if namespace.startswith(_PREFIX) else None


def counter_key(ad_id: str) -> bytes:
    """Return the key of an ad's counter: an id may be longer than a key of the store."""
    return hashlib.blake2b(ad_id.encode(), digest_size=16).digest()


def put_spend(store: OnlineStore, day: date, totals: Mapping[str, float]) -> int:
    """Raise the counters of a day to the totals. Return how many counters did not hold a larger total.

    Args:
        totals: ad_id -> what the ad has spent on the day so far, in the currency of the budgets.
    """
    namespace = spend_namespace(day)
    rows = [(counter_key(ad_id), sealed(STAMP.pack(round(total * _MILLION)))) for ad_id, total in totals.items()]
    counted = store.put(namespace, sorted(rows))
    if counted < len(rows):
        counted += sum(_replace_damaged(store, namespace, key, counter) for key, counter in rows)
    return counted


def _replace_damaged(store: OnlineStore, namespace: str, key: bytes, counter: bytes) -> bool:
    """Put a counter in the place of a damaged one, whose total may look larger than any."""
    before = store.get(namespace, key)
    return before is not None and is_damaged(before) and store.exchange(namespace, key, before, counter)


def total_in(counter: bytes) -> float:
    """Return the total that a counter holds.

    Raises:
        DamagedRecord: the counter does not fit its checksum.
    """
    return stamp_in(unsealed(counter)) / _MILLION

"""What becomes of the events of one request: new, known already, or of users who were forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from serving.contracts import Event
from warehouse.identity import UserKeys
from warehouse.online import OnlineStore
from warehouse.online.sequences import known_ids
from warehouse.online.store import StoreError


@dataclass(frozen=True)
class Intake:
    """The events of one request.

    Attributes:
        new: events that no stored sequence has, each once, in the order of the request.
        known: number of events that were sent before, or that are in the request twice.
        forgotten: number of events of users who were forgotten.
    """

    new: list[Event]
    known: int
    forgotten: int


def sort_out(events: Sequence[Event], forgotten: Collection[str], store: OnlineStore, keys: UserKeys) -> Intake:
    """Separate new events from known ones, at the cost of one look-up a user.

    The same id of another user is another event.

    An event is known when the user's stored sequence holds the event, which came from a table or from the landing zone.
    Where the store does not answer, every event counts as new; the daily run drops the events that it already has.

    Args:
        forgotten: ids of the users of whom nothing may be kept.
    """
    kept = [event for event in events if event.user_id not in forgotten]
    known = {user_id: _known(store, keys, user_id) for user_id in {event.user_id for event in kept}}
    new: list[Event] = []
    for event in kept:
        if event.event_id not in known[event.user_id]:
            known[event.user_id].add(event.event_id)
            new.append(event)
    return Intake(new, len(kept) - len(new), len(events) - len(kept))


def _known(store: OnlineStore, keys: UserKeys, user_id: str) -> set[str]:
    try:
        return known_ids(store, keys.key(user_id).encode())
    except StoreError:
        return set()

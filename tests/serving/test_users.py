"""The facts about a user that the service reads from the online store."""

from __future__ import annotations

from datetime import UTC, datetime

from serving.contracts import Demographics
from serving.users import KnownUser, PastEvent
from settings import ONSITE_EVENTS


def test_an_item_of_ads_alone_has_not_been_seen() -> None:
    """Where repeats do not count, what a user has seen is hidden: a clicked ad is no reason to hide its item."""
    names = [("bought", "checkout"), ("clicked", ONSITE_EVENTS[0]), ("both", "page_visit"), ("both", ONSITE_EVENTS[1])]
    history = [PastEvent(item, name, datetime(2026, 3, 1, tzinfo=UTC)) for item, name in names]
    user = KnownUser(None, False, [], history, Demographics())
    assert user.seen == {"bought", "both"}

"""The facts about a user that the service reads from the online store."""

from __future__ import annotations

from serving.contracts import Demographics
from serving.users import KnownUser, PastEvent, StoredSequence
from settings import ONSITE_EVENTS
from tests.serving.stored import AT, sequence_of


def test_an_item_of_ads_alone_has_not_been_seen() -> None:
    """Where repeats do not count, what a user has seen is hidden: a clicked ad is no reason to hide its item."""
    names = [("bought", "checkout"), ("clicked", ONSITE_EVENTS[0]), ("both", "page_visit"), ("both", ONSITE_EVENTS[1])]
    user = KnownUser(None, False, [], sequence_of(names), Demographics())
    assert user.seen == {"bought", "both"}


def test_the_history_is_what_the_store_holds() -> None:
    user = KnownUser(None, False, [], sequence_of([(None, "signup"), ("bought", "checkout")]), Demographics())
    assert user.history == [PastEvent(None, "signup", AT), PastEvent("bought", "checkout", AT)]
    assert KnownUser(None, False, [], StoredSequence(), Demographics()).history == []

"""What a home would answer, to be compared."""

from __future__ import annotations

from serving.answer import answer
from serving.contracts import CandidateRequest
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.propose import Proposers
from serving.publication import Served
from settings import Settings
from tests.assets.world import DAYS
from tests.flow import Ran
from warehouse.online import OnlineStore, open_store
from warehouse.surfaces import Surface

Answer = tuple[str, str, list[tuple[str, float]]]


def answers(ran: Ran, store: str = "lmdb", users: int = 8) -> dict[str, Answer]:
    """Of some users who were active on the newest of the common days, beside an item and without: basis, day, and items
    with scores."""
    opened = open_store(store, ran.home)
    try:
        return answers_of(Served.newest(ran.home.root, opened), opened, asking(ran, users))
    finally:
        opened.close()


def asking(ran: Ran, users: int = 8) -> list[str]:
    """Users who were active on the newest of the common days, and one whom nobody knows."""
    active = ran.tables.read("user_sequences", {"day": DAYS[-1]})["user_id"].sort()
    return [*ran.ids(active.gather_every(max(1, len(active) // users))), "nobody"]


def answers_of(served: Served, store: OnlineStore, users: list[str]) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    proposers = Proposers.of(Settings().serving)
    subject = served.catalogue.frame["item_id"][5]
    for user in users:
        for name, request in (
            (f"{user} at home", CandidateRequest(user_id=user, k=20)),
            (
                f"{user} beside {subject}",
                CandidateRequest(user_id=user, k=20, surface=Surface.related_pins, subject_item_id=subject),
            ),
        ):
            answered = answer(served, store, request, proposers=proposers, watch=Stopwatch(ServiceMetrics())).response
            items = [(each.item_id, round(each.score, 4)) for each in answered.candidates]
            found[name] = (answered.basis.value, answered.day.isoformat(), items)
    return found

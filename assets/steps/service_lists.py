"""The lists that the service gives to probes, asked in this process, under production and under the holdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from warehouse.contracts import ARMS
from warehouse.online import open_store
from warehouse.online.publication import served_whole

if TYPE_CHECKING:
    from ml.relevance.scrape import Lists

ASKED = 25
"""Places of an answer, of which the first ten are measured: enough that the trim leaves ten."""
ASKED_AT_ONCE = 50
"""Probes whose candidates are scored together."""


def service_lists(workspace: Workspace, day: date) -> Lists | None:
    """Return the answers of the publication of ``day``; None where another day, or none, is published.

    One search serves both arms: the holdout's answer has the same candidates, untrimmed. No answer is written, and the
    candidates of many probes are scored together.
    """
    from threadpoolctl import threadpool_limits

    from serving.answer import Proposed, propose_under
    from serving.contracts import CandidateRequest
    from serving.generators import Scored
    from serving.prometheus import ServiceMetrics, Stopwatch
    from serving.propose import Proposers
    from serving.publication import Served
    from serving.relevance_scorer import Arm
    from serving.trim import irrelevant_of, without

    with closing(open_store(workspace.settings.online.store, workspace.home)) as store:
        published = served_whole(store)
    if published is None or published.day != day:
        return None

    def lists(probes: pl.DataFrame) -> Mapping[str, Sequence[Sequence[str]]]:
        proposers = Proposers.of(workspace.settings.serving)
        watch = Stopwatch(ServiceMetrics())
        found: dict[str, list[list[str]]] = {arm: [] for arm in ARMS}
        with closing(open_store(workspace.settings.online.store, workspace.home)) as store, threadpool_limits(1):
            served = Served.newest(workspace.home.root, store)
            listed, places = served.catalogue.listed, probes.select("surface", "subject_item_id", "query", "user_id")

            def proposed(surface: str, subject: str | None, query: str | None, user: str) -> Proposed:
                request = CandidateRequest(user_id=user, surface=surface, subject_item_id=subject, query=query, k=ASKED)
                return propose_under(
                    served,
                    store,
                    request,
                    key=user.encode(),
                    arm=Arm.production,
                    proposers=proposers,
                    watch=watch,
                )

            def ids(chosen: Sequence[Scored]) -> list[str]:
                return [served.catalogue.attributes.item_id[int(listed[each.row])] for each in chosen]

            try:
                for block in places.iter_slices(ASKED_AT_ONCE):
                    answers = [proposed(*place) for place in block.rows()]
                    dropped = irrelevant_of([each.trim for each in answers], [each.lists for each in answers])
                    for each, rows in zip(answers, dropped, strict=True):
                        kept = without(each.lists, rows)
                        found[Arm.production.value].append(ids(each.chosen(kept, proposers, ASKED)))
                        found[Arm.holdout.value].append(ids(each.chosen(each.lists, proposers, ASKED)))
            finally:
                proposers.close()
        return found

    return lists

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
    from serving.answer import Answered

ASKED = 25
"""Places of an answer, of which the first ten are measured: enough that the trim leaves ten."""


def service_lists(workspace: Workspace, day: date) -> Lists | None:
    """Return the answers of the publication of ``day``; None where another day, or none, is published.

    One search serves both arms: the holdout's answer has the same candidates, untrimmed.
    """
    from threadpoolctl import threadpool_limits

    from serving.answer import answer_under
    from serving.contracts import CandidateRequest
    from serving.prometheus import ServiceMetrics, Stopwatch
    from serving.propose import Proposers
    from serving.publication import Served
    from serving.relevance_scorer import Arm

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

            def ids(answered: Answered, arm: Arm) -> list[str]:
                chosen = answered.untrimmed(proposers, ASKED) if arm is Arm.holdout else answered.found
                listed = served.catalogue.listed
                return [served.catalogue.attributes.item_id[int(listed[each.row])] for each in chosen]

            try:
                for surface, subject, query, user in probes.select(
                    "surface", "subject_item_id", "query", "user_id"
                ).rows():
                    request = CandidateRequest(
                        user_id=user, surface=surface, subject_item_id=subject, query=query, k=ASKED
                    )
                    answered = answer_under(
                        served,
                        store,
                        request,
                        key=user.encode(),
                        arm=Arm.production,
                        proposers=proposers,
                        watch=watch,
                    )
                    for arm in Arm:
                        found[arm.value].append(ids(answered, arm))
            finally:
                proposers.close()
        return found

    return lists

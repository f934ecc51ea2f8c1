"""The state that all requests of a process share, and what every operation refuses in the same words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, HTTPException, Request, status

from serving.answer import Answered
from serving.contracts import CandidateRequest
from serving.follow_publication import Follower
from serving.funnel_sample import sampled_rows
from serving.prometheus import ServiceMetrics
from serving.propose import Proposers
from serving.publication import Served
from serving.take_labels import RatersDesk
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.forget import forgotten_users
from warehouse.identity import UserKeys
from warehouse.landing import ManifestError
from warehouse.live_rows import LiveRows
from warehouse.online import OnlineStore
from warehouse.online.publication import FORGOTTEN
from warehouse.online.store import StoreError
from warehouse.tables import Tables

logger = logging.getLogger(__name__)
PAGE_POLICY = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@dataclass(frozen=True)
class Service:
    """The state that all requests share."""

    store: OnlineStore
    follower: Follower
    metrics: ServiceMetrics
    live: LiveRows
    desk: RatersDesk
    tables: Tables
    keys: UserKeys
    proposers: Proposers
    settings: Settings

    @property
    def served(self) -> Served:
        """Return the publication that answers now.

        Raises:
            HTTPException: 503, nothing has been published, or the publication cannot be loaded.
        """
        current = self.follower.current
        if current is None:
            problem = self.follower.problem
            raise HTTPException(
                status.HTTP_503_SERVICE_UNAVAILABLE,
                "nothing is published yet: run a day (adseq run), which materializes online_states; adseq summary says "
                "whether the home has a model of items"
                if problem is None
                else f"what is published cannot be loaded: {problem}",
                headers={"Retry-After": "5"},
            )
        return current

    def forgotten_among(self, user_ids: Iterable[str]) -> set[str]:
        """Return the users who were forgotten: the service may keep nothing of them."""
        keys = {user_id: self.keys.key(user_id) for user_id in set(user_ids)}
        try:
            return {user for user, key in keys.items() if self.store.get(FORGOTTEN, key.encode()) is not None}
        except StoreError:  # the tables know it, too, and an event is taken without the store
            forgotten = set(forgotten_users(self.tables))
            return {user for user, key in keys.items() if key in forgotten}

    def now(self) -> datetime:
        """Return the present instant, in UTC."""
        return datetime.now(UTC)

    def arrival(self) -> datetime:
        """Return the present instant, at which labels, reports and samples arrive.

        The calendar of a synthetic world stands still: there, they arrive on the day after its newest published day.
        """
        now, current = self.now(), self.follower.current
        return now if current is None else current.publication.arrival(now)

    def log_sample(self, served: Served, request: CandidateRequest, answered: Answered) -> None:
        """Write all candidates of a request into the landing zone. A sample that cannot be written is counted."""
        try:
            now = self.arrival()
            rows = sampled_rows(served, request, answered, now=now, share=self.settings.relevance.sample_share)
            self.live.append(LandingTable.funnel_sample, rows, now)
        except (OSError, ManifestError) as error:
            self._lose_a_sample(str(error))
        except Exception as error:  # the answer is out; its message may hold what the request said
            self._lose_a_sample(type(error).__name__)

    def _lose_a_sample(self, why: str) -> None:
        self.metrics.lost_samples.inc()
        logger.error("a sample of candidates cannot be written: %s", why)


# A coroutine because FastAPI runs plain functions in threads, which takes longer than what it does.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]


@contextmanager
def writing_to_the_landing_zone(rows: str) -> Iterator[None]:
    """Answer 503 where the landing zone cannot be written.

    Args:
        rows: what the request brings, in the plural.
    """
    try:
        yield
    except (OSError, ManifestError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its manifest.toml breaks a rule"
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            f"the landing zone cannot be written ({reason}); none of the {rows} was taken, send them again",
            headers={"Retry-After": "5"},
        ) from error

"""The HTTP service.

One process answers with one thread of torch and FAISS; more processes are more cores. It binds to loopback unless told
otherwise, and asks for a bearer token where one is set. User ids are in no log line.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.background import BackgroundTask
from starlette.middleware.trustedhost import TrustedHostMiddleware
from threadpoolctl import threadpool_limits

from serving.answer import Answered, answer, history
from serving.contracts import (
    CandidateRequest,
    CandidateResponse,
    EventsRequest,
    EventsResponse,
    HistoryRequest,
    HistoryResponse,
    SpendRequest,
    SpendResponse,
)
from serving.follow_publication import Follower
from serving.funnel_sample import sampled_rows
from serving.label_contracts import (
    FeedbackRequest,
    FeedbackResponse,
    LabelsRequest,
    LabelsResponse,
    NextPairRequest,
    NextPairResponse,
)
from serving.middleware.auth_and_timing import Authorised, Measured, open_to_all
from serving.middleware.load_shedding import Shedding
from serving.openapi import ASKED, EVERYWHERE, PLAIN_TEXT, UNAVAILABLE, WITHOUT_A_QUEUE, describe, operation_id
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.propose import Proposers
from serving.publication import Served
from serving.refresh import add_all
from serving.take_events import sort_out
from serving.take_labels import NoQueue, NotQueued, RatersDesk
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.forget import forgotten_users
from warehouse.home import Home
from warehouse.identity import UserKeys
from warehouse.landing import Landing, ManifestError
from warehouse.live_rows import LiveRows
from warehouse.online import OnlineStore, open_store
from warehouse.online.publication import FORGOTTEN, served_whole
from warehouse.online.spend import put_spend
from warehouse.online.store import StoreError
from warehouse.queued_pairs import Labelling
from warehouse.tables import TableDamaged, Tables

logger = logging.getLogger(__name__)
TOKEN_VARIABLE = "ADSEQ_TOKEN"
PAGE, LABEL_PAGE = (Path(__file__).with_name(name) for name in ("page.html", "label.html"))
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

    def arrival(self) -> datetime:
        """Return the present instant, at which labels, reports and samples arrive.

        The calendar of a synthetic world stands still: there, they arrive on the day after its newest published day.
        """
        now, current = clock(), self.follower.current
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


def clock() -> datetime:
    """Return the present instant, in UTC."""
    return datetime.now(UTC)


def create_app(settings: Settings, token: str | None = None) -> FastAPI:
    """Return the application over a home.

    Raises (when it starts):
        StoreUnreachable: the online store does not answer.
        StoreDamaged: the store lacks records that its pointer promises, or holds records of another format.
        GeneratorRefused: the settings name a generator that cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        import torch

        # Libraries with threads of their own would spin for each of a request's small products.
        torch.set_num_threads(1)
        threadpool_limits(1)
        home = Home(settings.home)
        proposers = Proposers.of(settings.serving)
        store, metrics = open_store(settings.online.store, home), ServiceMetrics()
        served_whole(store)
        follower = Follower(Path(home.root), store, metrics, settings.serving.follow_seconds)
        follower.start()
        landing, tables = Landing(home.landing), Tables(home.tables)
        live = LiveRows(landing)
        app.state.service = Service(
            store=store,
            follower=follower,
            metrics=metrics,
            live=live,
            desk=RatersDesk(Labelling(tables, landing), live, settings.relevance.raters_per_pair),
            tables=tables,
            keys=UserKeys.of_home(home),
            proposers=proposers,
            settings=settings,
        )
        yield
        follower.stop()
        proposers.close()
        store.close()

    app = FastAPI(
        title="adseq candidates",
        description="Ads that are personal and relevant here: the stored state of a user meets what they look at.",
        version="1",
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Shedding, settings=settings.serving)
    if token is not None:
        app.add_middleware(Authorised, token=token)
    app.add_middleware(Measured)
    if token is None:  # a page of another site must not reach the service through a name that it points at loopback
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.exception_handler(RequestValidationError)(_explained)
    app.exception_handler(StoreError)(_without_store)
    _routes(app)
    _label_routes(app)
    describe(app, token is not None)
    return app


def app_of_environment() -> FastAPI:
    """Return the application of ``adseq serve``, with settings and token from the environment.

    All processes of the service share the environment.
    """
    return create_app(Settings(), os.environ.get(TOKEN_VARIABLE) or None)


def _routes(app: FastAPI) -> None:
    # On the event loop and not in a thread: a request is two milliseconds of computing, and threads that take turns at
    # it make all of them late.
    @app.post("/candidates", response_model=CandidateResponse, responses=ASKED)
    async def candidates(request: CandidateRequest, service: TheService) -> Response:
        """Return the best ads for a user in a place."""
        watch = Stopwatch(service.metrics)
        relevance, served = service.settings.relevance, service.served
        answered = answer(
            served,
            service.store,
            request,
            proposers=service.proposers,
            watch=watch,
            holdout_share=relevance.holdout_share,
        )
        found = answered.response
        service.metrics.answers.labels(found.basis.value, request.surface.value).inc()
        if len(found.candidates) < request.k:
            service.metrics.short.inc()
        if found.state_age_seconds is not None:
            service.metrics.state_age.observe(found.state_age_seconds)
        sampled = random.random() < relevance.sample_share
        return Response(
            found.model_dump_json(exclude_none=True),
            media_type="application/json",
            background=BackgroundTask(service.log_sample, served, request, answered) if sampled else None,
        )

    @app.post("/events", responses=ASKED)
    def events(request: EventsRequest, service: TheService) -> EventsResponse:
        """Take conversions as they happen. Each is durable at once, and the next answer knows each."""
        now = clock()
        _refuse_the_future(request, now, service.settings.data.future_tolerance_hours)
        with _writing_to_the_landing_zone("events"):
            forgotten = service.forgotten_among(event.user_id for event in request.events)
            intake = sort_out(request.events, forgotten, service.store, service.keys)
            rows = [event.model_dump(mode="json") for event in intake.new]
            appended = service.live.append(LandingTable.events, rows, now)
        current = service.follower.current
        return EventsResponse(
            accepted=appended.written,
            known=intake.known + len(intake.new) - appended.written,
            forgotten=intake.forgotten,
            arrival_day=appended.day,
            refreshed=current is not None and add_all(current, service.store, intake.new, now),
        )

    @app.post("/spend", responses=ASKED)
    def spend(request: SpendRequest, service: TheService) -> SpendResponse:
        """Take what ads have spent so far. An ad whose budget of the day is used up is no candidate any longer."""
        publication = service.served.publication
        _refuse_another_day(request.day, publication.instant(clock()), publication.time_zone)
        totals: dict[str, float] = {}
        for each in request.spent:
            totals[each.ad_id] = max(each.total, totals.get(each.ad_id, 0.0))
        return SpendResponse(counted=put_spend(service.store, request.day, totals))

    @app.post("/history", response_model_exclude_none=True, responses=ASKED)
    def history_of(request: HistoryRequest, service: TheService) -> HistoryResponse:
        """Return the last events of a user, for a person who looks at the candidates."""
        return history(service.served, service.store, request)

    @app.get("/", include_in_schema=False)
    @open_to_all
    def page() -> FileResponse:
        """Return the page on which a person asks."""
        return FileResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/health", responses=EVERYWHERE)
    @open_to_all
    async def health() -> dict[str, str]:
        """Answer that the process runs."""
        return {"status": "ok"}

    @app.get("/ready", responses=EVERYWHERE | UNAVAILABLE)
    @open_to_all
    def ready(request: Request, service: TheService) -> dict[str, str]:
        """Answer that something is published, the store answers, and the process is not about to end.

        ``behind`` says why a newer publication does not answer.
        """
        if getattr(request.state, "draining", False):
            raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "the service is stopping: ask another one")
        publication = service.served.publication
        service.store.count(publication.states)
        behind = {} if service.follower.problem is None else {"behind": service.follower.problem}
        return {
            "status": "ready",
            "model_version": publication.model_version,
            "day": publication.day.isoformat(),
            **behind,
        }

    @app.get("/metrics", response_class=PlainTextResponse, responses=EVERYWHERE | PLAIN_TEXT)
    def metrics(service: TheService) -> Response:
        """Return counts and times, for Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _label_routes(app: FastAPI) -> None:
    @app.get("/label", include_in_schema=False)
    @open_to_all
    def label_page() -> FileResponse:
        """Return the page on which raters judge."""
        return FileResponse(LABEL_PAGE, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.post("/labels/next", responses=ASKED | WITHOUT_A_QUEUE)
    def labels_next(request: NextPairRequest, service: TheService) -> NextPairResponse:
        """Return the next pair of the labelling queue that a rater has not judged and that lacks raters."""
        with _reading_the_queue():
            return service.desk.next_pair(request, service.arrival())

    @app.post("/labels", responses=ASKED | WITHOUT_A_QUEUE)
    def labels(request: LabelsRequest, service: TheService) -> LabelsResponse:
        """Take a rater's judgements of queued pairs. Each is durable at once; the next day's run reads them."""
        with _reading_the_queue(), _writing_to_the_landing_zone("labels"):
            taken = service.desk.take(request, service.arrival())
        service.metrics.note_labels(taken.accepted - taken.corrected, taken.known, taken.corrected)
        return taken

    @app.post("/feedback", responses=ASKED)
    def feedback(request: FeedbackRequest, service: TheService) -> FeedbackResponse:
        """Take a report that a candidate does not fit its place. After the next day's run raters get the pair."""
        now = service.arrival()
        with _writing_to_the_landing_zone("reports"):
            row = request.model_dump(mode="json") | {"given_at": now.isoformat()}
            appended = service.live.append(LandingTable.feedback, [row], now)
        service.metrics.feedback.labels(request.surface.value).inc(appended.written)
        return FeedbackResponse(accepted=appended.written, known=1 - appended.written, arrival_day=appended.day)


@contextmanager
def _reading_the_queue() -> Iterator[None]:
    """Answer 404 without a labelling queue, 422 for a pair that no queue has, 503 where the queue cannot be read."""
    try:
        yield
    except NoQueue as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, str(error)) from error
    except NotQueued as error:
        rule = "no labelling queue has this pair: judge the pairs that POST /labels/next gives"
        problem = {"field": f"labels.{error.number}", "rule": rule}
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, [problem]) from error
    except TableDamaged as error:
        logger.error("the labelling queue cannot be read: %s", error)
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "the labelling queue cannot be read: adseq check names the damage",
            headers={"Retry-After": "5"},
        ) from error


@contextmanager
def _writing_to_the_landing_zone(rows: str) -> Iterator[None]:
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


def _refuse_the_future(request: EventsRequest, now: datetime, tolerance_hours: float) -> None:
    latest = now + timedelta(hours=tolerance_hours)
    for number, event in enumerate(request.events):
        if event.event_time > latest:
            rule = f"is more than {tolerance_hours:g} hours ahead of the service's clock"
            problem = {"field": f"events.{number}.event_time", "rule": rule}
            raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, [problem])


def _refuse_another_day(day: date, now: datetime, time_zone: str) -> None:
    today = now.astimezone(ZoneInfo(time_zone)).date()
    if abs(day - today) > timedelta(days=1):
        rule = f"is not within a day of {today}, the service's day in {time_zone}"
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, [{"field": "day", "rule": rule}])


# A coroutine because FastAPI runs plain functions in threads, which takes longer than what it does.
async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]


async def _without_store(_: Request, error: Exception) -> JSONResponse:
    """Return a 503. Only the log gets the store's message, which may name the place of the store."""
    logger.error("the online store does not answer: %s", error)
    detail = "the online store does not answer: try again in a second"
    return JSONResponse({"detail": detail}, status.HTTP_503_SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})


async def _explained(_: Request, error: Exception) -> JSONResponse:
    """Return a 422 with the field and the rule, but without the input, which may name a user."""
    assert isinstance(error, RequestValidationError)
    problems = [
        {"field": ".".join(str(part) for part in each["loc"][1:]) or "body", "rule": each["msg"]}
        for each in error.errors()
    ]
    return JSONResponse({"detail": problems}, status.HTTP_422_UNPROCESSABLE_CONTENT)

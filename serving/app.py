"""The HTTP service.

One process answers with one thread of torch and FAISS; more processes are more cores. It binds to loopback unless told
otherwise, and asks for a bearer token where one is set. User ids are in no log line.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from fastapi import FastAPI, HTTPException, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.background import BackgroundTask
from starlette.middleware.trustedhost import TrustedHostMiddleware
from threadpoolctl import threadpool_limits

from serving.answer import answer, history
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
from serving.direct_route import DirectRoute
from serving.follow_publication import Follower
from serving.label_routes import add_label_routes
from serving.middleware.auth_and_timing import Authorised, Measured, open_to_all
from serving.middleware.load_shedding import Shedding
from serving.openapi import ASKED, EVERYWHERE, PLAIN_TEXT, UNAVAILABLE, describe, operation_id
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.propose import Proposers
from serving.refresh import add_all
from serving.service import PAGE_POLICY, Service, TheService, writing_to_the_landing_zone
from serving.take_events import sort_out
from serving.take_labels import RatersDesk
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.identity import UserKeys
from warehouse.landing import Landing
from warehouse.live_rows import LiveRows
from warehouse.online import open_store
from warehouse.online.publication import served_whole
from warehouse.online.spend import put_spend
from warehouse.online.store import StoreError
from warehouse.queued_pairs import Labelling
from warehouse.tables import Tables

logger = logging.getLogger(__name__)
TOKEN_VARIABLE = "ADSEQ_TOKEN"
PAGE = Path(__file__).with_name("page.html")


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
    _add_candidate_routes(app)
    _add_arrival_routes(app)
    _add_page_routes(app)
    _add_operation_routes(app)
    add_label_routes(app)
    describe(app, token is not None)
    return app


def app_of_environment() -> FastAPI:
    """Return the application of ``adseq serve``, with settings and token from the environment.

    All processes of the service share the environment.
    """
    return create_app(Settings(), os.environ.get(TOKEN_VARIABLE) or None)


def _add_candidate_routes(app: FastAPI) -> None:
    """Add the route that answers with candidates."""

    # On the event loop and not in a thread: a request is a millisecond of computing, and threads that take turns at
    # it make all of them late.
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
            found.to_json(),
            media_type="application/json",
            background=BackgroundTask(service.log_sample, served, request, answered) if sampled else None,
        )

    app.router.add_api_route(
        "/candidates",
        candidates,
        methods=["POST"],
        response_model=CandidateResponse,
        responses=ASKED,
        route_class_override=DirectRoute,
        generate_unique_id_function=operation_id,
    )


def _add_arrival_routes(app: FastAPI) -> None:
    """Add the routes that events and the spend of ads arrive on."""

    @app.post("/events", responses=ASKED)
    def events(request: EventsRequest, service: TheService) -> EventsResponse:
        """Take conversions as they happen. Each is durable at once, and the next answer knows each."""
        now = service.now()
        _refuse_the_future(request, now, service.settings.data.future_tolerance_hours)
        with writing_to_the_landing_zone("events"):
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
        _refuse_another_day(request.day, publication.instant(service.now()), publication.time_zone)
        totals: dict[str, float] = {}
        for each in request.spent:
            totals[each.ad_id] = max(each.total, totals.get(each.ad_id, 0.0))
        return SpendResponse(counted=put_spend(service.store, request.day, totals))


def _add_page_routes(app: FastAPI) -> None:
    """Add the page for people, and the route that it reads."""

    @app.post("/history", response_model_exclude_none=True, responses=ASKED)
    def history_of(request: HistoryRequest, service: TheService) -> HistoryResponse:
        """Return the last events of a user, for a person who looks at the candidates."""
        return history(service.served, service.store, request)

    @app.get("/", include_in_schema=False)
    @open_to_all
    def page() -> FileResponse:
        """Return the page on which a person asks."""
        return FileResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY})


def _add_operation_routes(app: FastAPI) -> None:
    """Add the routes for load balancers and Prometheus."""

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

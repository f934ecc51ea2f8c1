"""The gate before every request: the token, the size of the body, and the clock.

Whether a request needs the token is decided by the route that will answer it, never by its path: a router may match
paths that look different (``/history%0A`` is ``/history``). An endpoint that everybody may reach says so with
``open_to_all``; everything else, unknown paths too, needs the token.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Response, status
from fastapi.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.prometheus import ServiceMetrics

WITHOUT_TOKEN = JSONResponse(
    {"detail": "give the service's token: Authorization: Bearer TOKEN"},
    status.HTTP_401_UNAUTHORIZED,
    headers={"WWW-Authenticate": "Bearer"},
)
POLICY_VIOLATION = 1008  # RFC 6455: why a socket is closed
MAXIMUM_BODY = 1024 * 1024  # bytes; the largest valid request, a thousand blocked advertisers, is half of it
OPEN = "adseq_open_to_all"  # attribute of an endpoint
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def open_to_all(endpoint: Endpoint) -> Endpoint:
    """Let requests without the token reach an endpoint."""
    setattr(endpoint, OPEN, True)
    return endpoint


def is_open_to_all(endpoint: object) -> bool:
    """Return whether requests without the token may reach an endpoint."""
    return getattr(endpoint, OPEN, False) is True


class Authorised:
    """Asks for the service's token before a body is read or a request waits for its turn."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.wanted = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that has the token or needs no token; refuse other requests."""
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or hmac.compare_digest(given, self.wanted) or _is_open(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await WITHOUT_TOKEN(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})


def _is_open(scope: Scope) -> bool:
    """Return whether everybody may reach the endpoint that the router will choose: the first full match."""
    for route in scope["app"].router.routes:
        match, chosen = route.matches(scope)
        if match is Match.FULL:
            return is_open_to_all(chosen.get("endpoint"))
    return False


def _pattern(scope: Scope) -> str:
    """Return the pattern of the route that has answered or would answer: patterns are few, paths are not."""
    if "route" in scope:
        return str(getattr(scope["route"], "path", "unknown"))
    for route in scope["app"].router.routes:
        if route.matches(scope)[0] is not Match.NONE:
            return str(getattr(route, "path", "unknown"))
    return "unknown"


class Measured:
    """Refuses large bodies before they are read, and times the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, seen = time.perf_counter(), "closed"  # by the client, before there was an answer

        async def noting(message: Message) -> None:
            nonlocal seen
            if message["type"] == "http.response.start":
                seen = str(message["status"])
            await send(message)

        refusal = _refusal(scope)
        try:
            await (refusal or self.app)(scope, receive, noting)
        except Exception:
            seen = "500"
            raise
        finally:
            metrics: ServiceMetrics = scope["app"].state.service.metrics
            metrics.seconds.labels(_pattern(scope), seen).observe(time.perf_counter() - started)


def _refusal(scope: Scope) -> Response | None:
    """Return the answer to a request with a body that is too large or of unknown length; None for other requests.

    Without a length, only a POST or a chunked request is refused.
    """
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" not in headers:
        if not length and scope["method"] != "POST":
            return None
        if length.isdigit() and int(length) <= MAXIMUM_BODY:
            return None
    code = status.HTTP_413_CONTENT_TOO_LARGE if length else status.HTTP_411_LENGTH_REQUIRED
    rule = f"a body says its length (Content-Length), which is at most {MAXIMUM_BODY} bytes"
    return JSONResponse({"detail": rule}, code)

"""What stands before every request: the token, the size of the body, and the clock."""

from __future__ import annotations

import hmac
import time

from fastapi import Response, status
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics

GUARDED = ("/candidates", "/events", "/history", "/metrics")
WITHOUT_TOKEN = JSONResponse(
    {"detail": "give the service's token: Authorization: Bearer TOKEN"},
    status.HTTP_401_UNAUTHORIZED,
    headers={"WWW-Authenticate": "Bearer"},
)
MAXIMUM_BODY = 1024 * 1024  # bytes; the largest valid request, a thousand blocked advertisers, is half of it


class Authorised:
    """Asks for the service's token before anything is read or counted."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.wanted = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and scope["path"] in GUARDED and not hmac.compare_digest(given, self.wanted):
            await WITHOUT_TOKEN(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Measured:
    """Refuses large bodies before they are read, and times the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, seen = time.perf_counter(), "500"

        async def noting(message: Message) -> None:
            nonlocal seen
            if message["type"] == "http.response.start":
                seen = str(message["status"])
            await send(message)

        refusal = _refusal(scope)
        try:
            await (refusal or self.app)(scope, receive, noting)
        finally:
            path = getattr(scope.get("route"), "path", "unknown")  # the pattern, so that the series are few
            metrics: Metrics = scope["app"].state.service.metrics
            metrics.seconds.labels(path, seen).observe(time.perf_counter() - started)


def _refusal(scope: Scope) -> Response | None:
    length = dict(scope["headers"]).get(b"content-length", b"")
    if scope["method"] != "POST" or (length.isdigit() and int(length) <= MAXIMUM_BODY):
        return None
    code = status.HTTP_413_CONTENT_TOO_LARGE if length else status.HTTP_411_LENGTH_REQUIRED
    rule = f"a body says its length (Content-Length), which is at most {MAXIMUM_BODY} bytes"
    return JSONResponse({"detail": rule}, code)

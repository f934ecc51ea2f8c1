"""What comes on top of what the service can do is refused at once, so that what it accepts is answered in time.

Requests are answered one after the other on the event loop, in rounds: what has arrived when a round begins has its
turn in it. Whoever has waited in a round for longer than ``ADSEQ_SERVING__MAXIMUM_WAIT_SECONDS`` gets 503 and
``Retry-After``, which takes a hundredth of an answer, so a round is never much longer than that, and what arrives
meanwhile waits for one round at most. (The server's own limit counts connections, idle ones too, and sends no
``Retry-After``.)
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from fastapi import status
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settings import ServingSettings

NEVER_REFUSED = ("/health", "/ready", "/metrics")
MAXIMUM_RUNNING = 64
BODY_SECONDS = 5.0
BUSY = JSONResponse(
    {"detail": "more requests than can be answered in time: try again in a second, or add processes"},
    status.HTTP_503_SERVICE_UNAVAILABLE,
    headers={"Retry-After": "1"},
)
TOO_MANY = JSONResponse(
    {"detail": "more requests a second than ADSEQ_SERVING__REQUESTS_PER_SECOND allows: try again in a second"},
    status.HTTP_429_TOO_MANY_REQUESTS,
    headers={"Retry-After": "1"},
)
TOO_SLOW = JSONResponse(
    {"detail": f"the body did not arrive within {BODY_SECONDS:g} seconds"}, status.HTTP_408_REQUEST_TIMEOUT
)


class Shedding:
    """Middleware that refuses what would be late (503) or comes too often (429)."""

    def __init__(self, app: ASGIApp, settings: ServingSettings) -> None:
        self.app, self.maximum_wait = app, settings.maximum_wait_seconds
        self.allowance = Allowance(settings.requests_per_second) if settings.requests_per_second else None
        self._began: float | None = None  # of this round of the event loop
        self._running = 0  # begun and not ended: those that wait for a thread or a disk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in NEVER_REFUSED:
            await self.app(scope, receive, send)
        elif self._waited() > self.maximum_wait or self._running >= MAXIMUM_RUNNING:
            await BUSY(scope, receive, send)
        elif self.allowance is not None and not self.allowance.take(time.monotonic()):
            await TOO_MANY(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Only a request that is there takes a place: one that is sent slowly would keep it from the others."""
        arrived: list[Message] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while not arrived or arrived[-1].get("more_body"):
                    arrived.append(await receive())
        except TimeoutError:
            await TOO_SLOW(scope, receive, send)
            return
        remaining = iter(arrived)

        async def received() -> Message:
            return next(remaining, None) or await receive()

        self._running += 1
        try:
            await self.app(scope, received, send)
        finally:
            self._running -= 1

    def _waited(self) -> float:
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            asyncio.get_running_loop().call_soon(self._end_round)
        return now - self._began

    def _end_round(self) -> None:
        self._began = None


@dataclass
class Allowance:
    """A bucket of as many requests as a second allows, which fills evenly."""

    per_second: float
    left: float = field(init=False)
    filled: float = 0.0  # seconds

    def __post_init__(self) -> None:
        self.left = self.per_second

    def take(self, now: float) -> bool:
        """Whether one more request may come at ``now`` (seconds of a monotonic clock)."""
        self.left = min(self.per_second, self.left + (now - self.filled) * self.per_second)
        self.filled = now
        if self.left < 1:
            return False
        self.left -= 1
        return True

"""Requests take turns, first come, first served; a request that would be answered too late is refused instead.

A request of a burst waits for its turn for up to ``ADSEQ_SERVING__MAXIMUM_WAIT_SECONDS``. An overload is a queue that
does not end: once requests have waited for that long without a break, each may wait for
``ADSEQ_SERVING__OVERLOAD_WAIT_SECONDS`` only, so that the answered ones are in time and the queue is short when the
overload ends (the "controlled delay" of B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015). A request that has waited
for too long, or finds too many waiting, gets 503 with ``Retry-After``. Between two answers the event loop has some
rounds for ``/health`` and new connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import status
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settings import ServingSettings

NEVER_REFUSED = ("/health", "/ready", "/metrics")
MAXIMUM_RUNNING = 32
"""Requests that wait for a thread or a disk. There are 40 threads; the other 8 are for /ready and /metrics."""

ROUNDS = 4  # of the event loop between two turns: to accept a connection, read its request and answer /health
MAXIMUM_BODIES = 32 * 1024 * 1024  # bytes of all bodies that wait
Clock = Callable[[], float]  # seconds
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


class Shedding:
    """Middleware that refuses requests that would be late (503) or that come too often (429)."""

    def __init__(self, app: ASGIApp, settings: ServingSettings, clock: Clock = time.perf_counter) -> None:
        self.app, self.clock = app, clock
        self.turns = Turns(settings, clock)
        self.body_seconds = settings.request_seconds
        self.allowance = Allowance(settings.requests_per_second) if settings.requests_per_second else None
        self._bodies = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer requests in turn."""
        if scope["type"] != "http" or scope["path"] in NEVER_REFUSED:
            await self.app(scope, receive, send)
        elif self._bodies >= MAXIMUM_BODIES or self.turns.are_too_many():
            await BUSY(scope, receive, send)
        elif self.allowance is not None and not self.allowance.take(self.clock()):
            await TOO_MANY(scope, receive, send)
        else:
            await self._receive(scope, receive, send)

    async def _receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole request, then wait for a turn: a slowly sent request would keep the turn from the others."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_seconds):
                message = await self._next_part(body, receive)
                while message.get("more_body"):
                    message = await self._next_part(body, receive)
        except TimeoutError:
            self._bodies -= len(body)
            await self._too_slow(scope, receive, send)
            return
        try:
            if message["type"] != "http.disconnect":
                await self._answer(scope, bytes(body), receive, send)
        finally:
            self._bodies -= len(body)

    async def _next_part(self, body: bytearray, receive: Receive) -> Message:
        message = await receive()
        part = message.get("body", b"")
        body += part
        self._bodies += len(part)
        return message

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        if not await self.turns.take():
            await BUSY(scope, receive, send)
            return
        arrived: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        turns = [self.turns]

        async def received() -> Message:
            return arrived.pop() if arrived else await receive()

        async def sent(message: Message) -> None:
            if turns:  # a client that takes its answer slowly keeps nobody waiting
                turns.pop().end()
            await send(message)

        try:
            await self.app(scope, received, sent)
        finally:
            if turns:
                turns.pop().end()

    async def _too_slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"the body did not arrive within {self.body_seconds:g} seconds"
        await JSONResponse({"detail": detail}, status.HTTP_408_REQUEST_TIMEOUT)(scope, receive, send)


class Turns:
    """A queue of requests that begin one by one, some rounds of the event loop apart.

    A request has its turn until it begins to answer. ``MAXIMUM_RUNNING`` bounds those that wait for a thread or a disk.
    """

    def __init__(self, settings: ServingSettings, clock: Clock) -> None:
        self.settings, self.clock = settings, clock
        self._waiting: deque[Waiting] = deque()
        self._running = 0
        self._empty_at = 0.0  # seconds: when the queue was empty for the last time
        self._rounds = 0  # that are still to pass before the next turn
        self._scheduled: asyncio.Handle | None = None

    def are_too_many(self) -> bool:
        """Return whether no more requests may wait."""
        return len(self._waiting) >= self.settings.maximum_waiting

    async def take(self) -> bool:
        """Wait for a turn, which ``end`` gives back.

        Returns:
            False if the turn did not come in time.
        """
        waiting = Waiting(self.clock(), asyncio.get_running_loop().create_future())
        if not self._waiting:
            self._empty_at = waiting.since
        self._waiting.append(waiting)
        self._schedule()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if not waiting.turn.cancelled() and waiting.turn.result():
                self.end()
            raise

    def end(self) -> None:
        """Give a turn back. If nobody waits, the loop will have seen to the others when the next request comes."""
        self._running -= 1
        if not self._waiting:
            self._rounds = 0
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._scheduled = None
        self._schedule()

    def _schedule(self) -> None:
        """Plan the next look at the queue: in the next round or, where no turn is free, in a while."""
        if self._scheduled is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if self._running < MAXIMUM_RUNNING:
            self._scheduled = loop.call_soon(self._next)
        else:
            self._scheduled = loop.call_later(self.settings.overload_wait_seconds, self._next)

    def _next(self) -> None:
        """Refuse the requests that have waited too long, and begin one request."""
        self._scheduled = None
        self._rounds -= 1
        if self._rounds <= 0:
            self._turn_away(self.clock())
            self._begin_one()
        self._schedule()

    def _turn_away(self, now: float) -> None:
        """Refuse the requests that have waited too long at an instant (seconds)."""
        burst, overload = self.settings.maximum_wait_seconds, self.settings.overload_wait_seconds
        patience = overload if now - self._empty_at > burst else burst
        while self._waiting and now - self._waiting[0].since > patience:
            self._waiting.popleft().answer(False)

    def _begin_one(self) -> None:
        while self._waiting and self._running < MAXIMUM_RUNNING:
            if self._waiting.popleft().answer(True):
                self._running += 1
                self._rounds = ROUNDS
                return


@dataclass(frozen=True)
class Waiting:
    """A request in the queue."""

    since: float  # seconds
    turn: asyncio.Future[bool]

    def answer(self, has_turn: bool) -> bool:
        """Tell the request whether the request has a turn. Returns whether the request was still waiting."""
        if self.turn.done():
            return False
        self.turn.set_result(has_turn)
        return True


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

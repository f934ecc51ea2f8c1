"""One process of the service: uvicorn with bounds, and an end that loses no request.

On SIGTERM ``/ready`` says 503 at once and every answer carries ``Connection: close``, while new connections are still
answered for ``drain_seconds``, so that a load balancer notices. Then the process stops listening, answers what it has
accepted, and ends ``grace_seconds`` after the signal at the latest, whatever clients do. Ctrl-C does the same without
the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn
from uvicorn.server import Server

from serving.connections.handshakes import HANDSHAKE_SECONDS, refuse_handshakes
from serving.connections.open_connections import ConnectionBook
from serving.connections.protocol import MAXIMUM_LINGERING, BoundedProtocol
from settings import ServingSettings, Settings

APPLICATION = "serving.app:app_of_environment"
ACCEPTED = 64  # connections in a round of the event loop, which sees to the others between two rounds
BACKLOG = 2048  # connections that the kernel keeps until they are accepted
OTHER_FILES = 128  # store, index, logs, pipes
ANSWERING_SHARE = 0.8  # of what is left of the grace period; the rest is for the application's own end


def serve_on(
    listening: socket.socket, application: str = APPLICATION, service_ends: Callable[[], bool] = lambda: True
) -> None:
    """Answer on a bound socket until a signal ends the process.

    Args:
        listening: bound, not yet listening; several processes may share the socket.
        application: "module:function"; the function makes the ASGI application. Application and bounds follow the
            environment.
        service_ends: whether all processes end with this one, so that nobody listens any more.
    """
    limits = Settings().serving
    config = uvicorn.Config(
        application,
        factory=True,
        http=BoundedProtocol,
        ws="none",
        # uvloop takes in one new connection a round, and under load a round is long.
        loop="asyncio",
        backlog=ACCEPTED,
        timeout_keep_alive=limits.keep_alive_seconds,
        log_level="warning",
        access_log=False,  # a request's log line is of no use without the user, who shall not be in it
        proxy_headers=False,
        server_header=False,
    )
    DrainingServer(config, limits, listening, service_ends).run(sockets=[listening])


class DrainingServer(Server):
    """A server that goes on answering while others learn that it ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        limits: ServingSettings,
        listening: socket.socket,
        service_ends: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self.limits, self.listening, self.service_ends = limits, listening, service_ends
        self.server_state: ConnectionBook = ConnectionBook(limits, _possible_connections(limits.maximum_connections))
        self._late: set[asyncio.Task[object]] = set()
        self._ends_at = 0.0  # seconds of the monotonic clock
        self._wait = limits.drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end: on Ctrl-C, or a second signal, without a wait for others to notice."""
        if not self.should_exit:
            self._ends_at = time.monotonic() + self.limits.grace_seconds
            _end_within(self.limits.grace_seconds)
            self._begin_to_drain()
        if sig == signal.SIGINT or self.should_exit:
            self._wait = 0.0
        super().handle_exit(sig, frame)

    def _begin_to_drain(self) -> None:
        self.server_state.draining = True
        if self.started:
            self.lifespan.state["draining"] = True  # which every later request sees

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.listening.listen(BACKLOG)
        asyncio.get_running_loop().set_exception_handler(self._note_error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer new requests until others know, stop listening, answer the accepted requests, and end."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.drain()
        until = time.monotonic() + min(self._wait, self.limits.grace_seconds / 2)
        while time.monotonic() < until and self._wait:
            await asyncio.sleep(0.05)
        if self.service_ends():
            refuse_handshakes(self.listening)
            await asyncio.sleep(HANDSHAKE_SECONDS)
            self._accept_the_last()
        left = max(0.0, self._ends_at - time.monotonic()) * ANSWERING_SHARE
        asyncio.get_running_loop().call_later(left, self._abort_all)
        self.config.timeout_graceful_shutdown = math.ceil(left)
        await super().shutdown(sockets)

    def _accept_the_last(self) -> None:
        """Take the connections that the kernel has accepted, and stop new connections for all processes."""
        loop = asyncio.get_running_loop()
        protocol = partial(
            BoundedProtocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        accepted = []
        with contextlib.suppress(OSError):  # no more, or another process was first
            while True:
                accepted.append(self.listening.accept()[0])
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.setblocking(False)
            self._late.add(loop.create_task(loop.connect_accepted_socket(protocol, connection)))

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Stop listening when another process has stopped listening for all; report other errors as usual."""
        error = context.get("exception")
        if self.server_state.draining and isinstance(error, OSError) and error.errno == errno.EINVAL:
            for server in self.servers:
                server.close()
            self._wait = 0.0
        else:
            loop.default_exception_handler(context)

    def _abort_all(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.abort()


def _end_within(seconds: float) -> None:
    """End the process even if its event loop stands still."""
    watchdog = threading.Timer(seconds, os._exit, [1])
    watchdog.daemon = True
    watchdog.start()


def _possible_connections(wanted: int) -> int:
    """Return the number of connections that the limit of open files allows.

    The limit is raised first, as far as needed and allowed.
    """
    needed = wanted + MAXIMUM_LINGERING + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - MAXIMUM_LINGERING - OTHER_FILES)

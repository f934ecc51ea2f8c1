"""A server with the service's bounds and an application of a few lines, in a thread or in processes of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from serving.connections.open_connections import ConnectionBook
from serving.connections.protocol import BoundedProtocol
from settings import ServingSettings
from tests.processes import DEVNULL, Started, start
from tests.serving.few_lines import application
from tests.serving.running import connects, free_port, wait_for


@contextmanager
def server(**limits: float) -> Iterator[tuple[int, ConnectionBook]]:
    """The port and the book of a server in a thread."""
    settings = ServingSettings.model_validate(limits)
    book, loop = ConnectionBook(settings, settings.maximum_connections), asyncio.new_event_loop()
    config = uvicorn.Config(application, ws="none", timeout_keep_alive=settings.keep_alive_seconds, log_level="error")
    config.load()
    bound = socket.socket()  # as the service makes its own: with no number of a protocol
    bound.bind(("127.0.0.1", 0))
    made = loop.create_server(lambda: BoundedProtocol(config, book, {}, loop), sock=bound, backlog=4)
    listening = loop.run_until_complete(made)
    socket.socket(fileno=os.dup(listening.sockets[0].fileno())).listen(
        1024
    )  # few are accepted in a round, as in the service
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1], book
    finally:
        loop.call_soon_threadsafe(listening.close)
        for connection in list(book.connections):
            loop.call_soon_threadsafe(connection.transport.abort)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def process(processes: int = 1, **limits: object) -> Iterator[tuple[int, Started]]:
    """The port of a server in processes of its own, and the first of these."""
    port = free_port()
    code = "from tests.serving.few_lines import main; main()"
    environment = {**os.environ, **{f"ADSEQ_SERVING__{name.upper()}": str(value) for name, value in limits.items()}}
    with start(code, str(port), str(processes), environment=environment, stdout=DEVNULL, stderr=DEVNULL) as started:
        try:
            wait_for(lambda: connects(port))
            yield port, started
        finally:
            started.kill()


def ask(port: int, request: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", patience: float = 10.0) -> bytes:
    """The answer to what is sent on a connection of its own, until it is whole or the connection closed."""
    with socket.create_connection(("127.0.0.1", port), patience) as connection:
        connection.sendall(request)
        return answer(connection)


def answer(connection: socket.socket) -> bytes:
    """One answer, or what has come of it when the connection is closed."""
    found = b""
    while True:
        head, _, content = found.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")), None
        )
        if length is not None and len(content) >= length:
            return found
        try:
            part = connection.recv(1 << 20)
        except ConnectionError:
            return found
        if not part:
            return found
        found += part

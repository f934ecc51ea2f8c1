"""A service of a few lines with the real one's bounds and end: `python -m tests.serving.few_lines PORT PROCESSES`."""

from __future__ import annotations

import asyncio
import socket
import sys

from starlette.types import Receive, Scope, Send

from serving.connections.processes import Workers
from serving.connections.server import serve_on
from settings import Settings

LARGE = 4 * 1024 * 1024  # bytes of a large answer
APPLICATION = "tests.serving.few_lines:make"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after a while (/slow), at length (/large), after the body (/body), with none (/204, /304), or at once."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    content, status = b"ok", 200
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    elif scope["path"] == "/large":
        content = b"x" * LARGE
    elif scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    elif scope["path"] == "/ready" and scope["state"].get("draining"):
        status = 503
    head = [(b"content-length", b"%d" % len(content))]
    if scope["path"] in ("/204", "/304"):
        content, status, head = b"", int(scope["path"][1:]), []
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": content})


def make() -> object:
    return application


def main() -> None:
    """Listen as `adseq serve` does, on the port and with the processes that the process is given."""
    port, processes = map(int, sys.argv[1:])
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    if processes == 1:
        serve_on(listening, APPLICATION)
    else:
        Workers(listening, processes, Settings().serving.grace_seconds, APPLICATION).run()

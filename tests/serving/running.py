"""The service in processes of its own."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests import processes
from tests.assets.world import ADSEQ, environment
from tests.processes import Started
from warehouse.home import Home

PATIENCE = 120.0  # seconds; for a busy machine


@contextmanager
def service(home: Home, port: int, *arguments: str) -> Iterator[Started]:
    """`adseq serve`, ready."""
    variables = environment(home) | {"ADSEQ_SERVING__DRAIN_SECONDS": "0.1"}  # nobody has to learn of its end
    options = ("--port", str(port), *arguments)
    with processes.start(
        ADSEQ, "serve", *options, environment=variables, stdout=processes.DEVNULL, stderr=processes.DEVNULL
    ) as process:
        try:
            wait_for(lambda: ask(port, "/ready") is not None)
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def ask(port: int, path: str, body: object = None) -> Any:
    """The answer, or None where there is none."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
    except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError):
        return None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)

"""The service under what a stranger sends without the token: memory stays, and /health is answered in time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import psutil
import pytest

from tests import processes
from tests.assets.world import ADSEQ
from tests.serving.listening import ask
from tests.serving.running import connects, free_port, wait_for
from warehouse.home import Home
from warehouse.home_record import HOME_FORMAT, HomeRecord

pytestmark = pytest.mark.slow
SECONDS = 1.0  # in which /health answers, at the median: a single answer may wait for other tests of the machine
WORK_SECONDS = 1.0  # the service's own CPU seconds before each answer of /health
FLOOD_SECONDS = 3.0
GROWTH = 64 * 1024 * 1024  # bytes
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
BLOCK = b"a" * (1 << 20)


@dataclass(frozen=True)
class Flooded:
    """A service and what it takes."""

    port: int
    process: psutil.Process

    def memory(self) -> int:
        return int(self.process.memory_info().rss)

    def work_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flooded]:
    """`adseq serve` with a token, before the first publication."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    HomeRecord(format=HOME_FORMAT).write(Home(home))
    environment = {**os.environ, "ADSEQ_HOME": str(home), "ADSEQ_TOKEN": "secret", "OMP_NUM_THREADS": "1"}
    with processes.start(
        ADSEQ, "serve", "--port", str(port), environment=environment, stdout=processes.DEVNULL, stderr=processes.DEVNULL
    ) as started:
        try:
            wait_for(lambda: connects(port))
            assert ask(port, HEALTH).startswith(b"HTTP/1.1 200")
            yield Flooded(port, psutil.Process(started.pid))
        finally:
            started.kill()


def pour(head: bytes, block: bytes, count: int = 200) -> Callable[[int], None]:
    def send(port: int) -> None:
        # The service closes the connection.
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as connection:
            until = time.monotonic() + FLOOD_SECONDS
            connection.sendall(head)
            for _ in range(count):
                if time.monotonic() < until:
                    connection.sendall(block)

    return send


def hold(count: int, sent: bytes) -> Callable[[int], None]:
    def keep(port: int) -> None:
        held = []
        for _ in range(count):
            held.append(socket.create_connection(("127.0.0.1", port), 10))
            with suppress(OSError):  # the service has closed it
                held[-1].sendall(sent)
        time.sleep(0.5)
        for connection in held:
            connection.close()

    return keep


CHUNKED = b" / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"100000\r\n" + BLOCK + b"\r\n"
HISTORY = b"POST /history HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
FLOODS = {
    "chunked GET": pour(b"GET" + CHUNKED, CHUNK),
    "chunked PUT": pour(b"PUT" + CHUNKED, CHUNK),
    "endless header": pour(b"GET /health HTTP/1.1\r\nHost: x\r\nx: ", BLOCK),
    "endless headers": pour(b"GET /health HTTP/1.1\r\n", b"abc: def\r\n" * 100_000),
    "endless URL": pour(b"GET /", BLOCK),
    "requests sent ahead, answers not read": pour(b"", HISTORY * 10_000, 20),
    "silent connections": hold(1500, b""),
    "half heads": hold(1500, b"POST /candidates HTTP/1.1\r\nHost: 127" + b"a" * 15_000),
    "half bodies": hold(800, b"POST /history HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 60_000),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_costs_little_and_health_is_answered(flooded: Flooded, flood: str) -> None:
    before, peak, longest, waits = flooded.memory(), 0, 0.0, list[float]()
    attacker = threading.Thread(target=FLOODS[flood], args=(flooded.port,))
    attacker.start()
    until = time.monotonic() + FLOOD_SECONDS
    while attacker.is_alive() and time.monotonic() < until:
        asked, worked = time.monotonic(), flooded.work_seconds()
        assert ask(flooded.port, HEALTH).startswith(b"HTTP/1.1 200")
        waits.append(time.monotonic() - asked)
        longest = max(longest, flooded.work_seconds() - worked)
        peak = max(peak, flooded.memory())
        time.sleep(0.05)
    attacker.join(20)
    assert peak - before <= GROWTH
    assert median(waits) < SECONDS
    assert longest < WORK_SECONDS

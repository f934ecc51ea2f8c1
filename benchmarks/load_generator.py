"""Asking a candidate service over HTTP at a constant rate: a request is sent when it is due, whether or not the ones
before have come back, so a stall shows in the latency of all that were due in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.publication import ITEMS, USERS

RATES = (50, 100, 200)
RUNS = 5  # of the last rate: one run says little of the slowest hundredth
SECONDS, WARM_UP_SECONDS = 12, 3
OVERLOAD_SECONDS, CLOSED_SECONDS, CLOSED_CONNECTIONS = 10, 5, 16
WANTED = 50
CLOSED = 0  # instead of a status: the service closed the connection without an answer
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """Answers to a constant rate of requests."""

    rate: float
    latencies: Seconds  # seconds, from when a request was due
    failed: int
    stages: dict[str, float]  # mean seconds a request
    inside: float  # mean seconds a request, as the service has it
    cpu: float  # seconds of the service process an answered request

    def percentile(self, share: float) -> float:
        """Return the percentile of the latencies, in milliseconds."""
        return float(np.percentile(self.latencies, share) * 1e3)

    @property
    def overhead(self) -> float:
        """Return the time outside the stages, as a share of the time in the stages."""
        return self.inside / sum(self.stages.values()) - 1


@dataclass(frozen=True)
class Answer:
    """One answer of the service under load."""

    due: float  # seconds of a monotonic clock
    latency: float  # seconds, from when it was due
    status: int
    whole: bool  # as many candidates as asked for
    says_when: bool  # Retry-After


async def asked(port: int, connections: Connections, rate: float, seconds: float) -> list[Answer]:
    """Ask at a constant rate, whether or not answers come."""
    random = np.random.default_rng(int(rate))

    async def one(due: float) -> Answer:
        body = request_of(random)
        try:
            status, content, head = await connections.exchange("POST", "/candidates", body)
        except (ConnectionError, asyncio.IncompleteReadError):
            status, content, head = CLOSED, b"", b""
        whole = status == 200 and content.count(b'"item_id"') == WANTED
        return Answer(due, time.perf_counter() - due, status, whole, b"retry-after" in head.lower())

    began, running = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(one(due)))
    return await asyncio.gather(*running)


def request_of(random: np.random.Generator) -> dict[str, object]:
    """Return a request of a random user beside a random item."""
    return {
        "user_id": f"u{random.integers(0, USERS):07d}",
        "surface": "related_pins",
        "subject_item_id": f"i{random.integers(0, ITEMS):06d}",
        "k": WANTED,
    }


@dataclass(frozen=True)
class Overload:
    """Twice as many requests as can be answered, and the time after the overload."""

    sustainable: float  # requests a second that are answered when some connections ask one after the other
    cpu: float  # seconds of the service process an answered request, meanwhile
    offered: float
    answered: float  # a second
    p99: float  # seconds, of what was answered
    refused: int
    refused_without_saying_when: int
    closed: int  # connections closed without an answer
    other: int  # neither answered nor refused nor closed
    recovered: float  # seconds after the overload until everything is answered, and in time


async def overloaded(port: int, service: psutil.Process) -> Overload:
    """Find the sustainable rate, offer twice as much, then 100 requests a second."""
    connections, random = Connections(port), np.random.default_rng(0)
    counts = [0] * CLOSED_CONNECTIONS
    end = time.perf_counter() + CLOSED_SECONDS

    async def one_after_the_other(number: int) -> None:
        while time.perf_counter() < end:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                counts[number] += (await connections.ask("POST", "/candidates", request_of(random)))[0] == 200

    before = cpu_seconds(service)
    await asyncio.gather(*(one_after_the_other(number) for number in range(CLOSED_CONNECTIONS)))
    sustainable, cpu = sum(counts) / CLOSED_SECONDS, (cpu_seconds(service) - before) / max(1, sum(counts))
    loaded = asyncio.create_task(asked(port, connections, 2 * sustainable, OVERLOAD_SECONDS))
    await asyncio.sleep(OVERLOAD_SECONDS)
    ended = time.perf_counter()  # whether or not all of it is answered
    after = await asked(port, connections, RATES[-1] / 2, 3)
    answers = await loaded
    connections.close()
    good, refused = ([each for each in answers if each.status == status] for status in (200, 503))
    late = [each.due - ended for each in after if not each.whole or each.latency > 0.05]
    return Overload(
        sustainable=sustainable,
        cpu=cpu,
        offered=2 * sustainable,
        answered=len(good) / OVERLOAD_SECONDS,
        p99=float(np.percentile([each.latency for each in good], 99)),
        refused=len(refused),
        refused_without_saying_when=sum(not each.says_when for each in refused),
        closed=(closed := sum(each.status == CLOSED for each in answers)),
        other=len(answers) - len(good) - len(refused) - closed,
        recovered=max([0.0, *late]),
    )


def cpu_seconds(process: psutil.Process) -> float:
    """Return the seconds that all threads of a process have computed, in the program and in the kernel."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def load(port: int, rate: float, service: psutil.Process) -> Load:
    """Ask at a constant rate."""
    connections = Connections(port)
    await asked(port, connections, rate, WARM_UP_SECONDS)
    before = (await connections.ask("GET", "/metrics"))[1].decode()
    began = cpu_seconds(service)
    answers = await asked(port, connections, rate, SECONDS)
    cpu = (cpu_seconds(service) - began) / max(1, sum(each.status == 200 for each in answers))
    after = (await connections.ask("GET", "/metrics"))[1].decode()
    connections.close()
    stages = {name: _mean(before, after, f'adseq_stage_seconds_{{}}{{{{stage="{name}"}}}}') for name in _stages(after)}
    inside = _mean(before, after, 'adseq_request_seconds_{}{{path="/candidates",status="200"}}')
    latencies = np.array([each.latency for each in answers])
    return Load(rate, latencies, sum(not each.whole for each in answers), stages, inside, cpu)


class Connections:
    """Kept-alive HTTP connections. A client library takes longer to ask than the service to answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Return status and content of the answer."""
        return (await self.exchange(method, path, body))[:2]

    async def exchange(self, method: str, path: str, body: object = None) -> tuple[int, bytes, bytes]:
        """Return status, content and header of the answer."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.idle = [each for each in self.idle if not each[0].at_eof()]  # the service closes what is idle for long
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answered = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", answered.lower())[1])  # type: ignore[index]
        found = await reader.readexactly(length)
        self.idle.append((reader, writer))
        return int(answered.split(b" ", 2)[1]), found, answered

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()


def _stages(metrics: str) -> list[str]:
    return re.findall(r'adseq_stage_seconds_count\{stage="(\w+)"\}', metrics)


def _mean(before: str, after: str, series: str) -> float:
    """Return the mean of a histogram's new values."""

    def value(text: str, part: str) -> float:
        name = series.format(part)
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)

    total, count = (value(after, part) - value(before, part) for part in ("sum", "count"))
    return total / count if count else 0.0


async def post_events(port: int, count: int = 300) -> Seconds:
    """Return the seconds from sending an event to the answer, after which the next request knows the event.

    The events are sent one after the other.
    """
    random, seconds, connections = np.random.default_rng(0), [], Connections(port)
    for number in range(count):
        event = {
            "event_id": f"e{number}",
            "user_id": f"u{random.integers(0, USERS):07d}",
            "event_time": datetime.now(UTC).isoformat(),
            "event_name": "add_to_cart",
            "item_id": f"i{random.integers(0, ITEMS):06d}",
        }
        started = time.perf_counter()
        _, content = await connections.ask("POST", "/events", {"events": [event]})
        seconds.append(time.perf_counter() - started)
        assert b'"refreshed":true' in content
    connections.close()
    return np.array(seconds[20:])

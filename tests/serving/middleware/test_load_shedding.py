"""Too many requests: some are refused at once, the others are in time, and it is over when they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from serving.app import create_app
from serving.middleware.load_shedding import MAXIMUM_RUNNING, Allowance, Shedding
from settings import ServingSettings, Settings
from tests.flow import Ran

WORK = 0.004  # seconds an answer takes


class Clock:
    """A clock that work moves, so that the tests do not depend on the machine."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shedding(settings: ServingSettings, arrive: Callable[[], None] = lambda: None) -> tuple[Shedding, Clock]:
    """Requests that compute for ``WORK`` seconds each, as requests for candidates do; meanwhile others arrive."""
    clock = Clock()

    async def working(scope: Scope, receive: Receive, send: Send) -> None:
        clock.now += WORK
        arrive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Shedding(working, settings, clock), clock


async def asked(app: Shedding, path: str = "/candidates") -> tuple[int, dict[bytes, bytes], float]:
    """Status, headers and the instant of an answer."""
    answers: list[tuple[int, dict[bytes, bytes], float]] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answers.append((message["status"], dict(message["headers"]), app.clock()))

    async def receive() -> Message:
        return {"type": "http.request"}

    await app({"type": "http", "path": path, "method": "POST", "headers": []}, receive, send)
    return answers[0]


def test_a_burst_is_answered() -> None:
    """A hundred requests at once are no overload."""
    app, clock = shedding(ServingSettings())

    async def burst() -> None:
        for _ in range(3):
            began = clock()
            answers = await asyncio.gather(*(asked(app) for _ in range(100)))
            assert Counter(code for code, _, _ in answers) == {200: 100}
            assert clock() - began == pytest.approx(100 * WORK)

    asyncio.run(burst())


def test_what_would_be_late_is_refused_and_the_rest_is_in_time() -> None:
    app, clock = shedding(ServingSettings(maximum_wait_seconds=0.02, overload_wait_seconds=0.01))

    async def burst() -> None:
        for _ in range(3):  # and again at once: nothing is left of a burst
            began = clock()
            answers = await asyncio.gather(*(asked(app) for _ in range(100)))
            codes = Counter(code for code, _, _ in answers)
            assert 5 <= codes[200] <= 6
            assert codes[503] == 100 - codes[200]
            assert max(at for code, _, at in answers if code == 200) - began < 0.02 + 2 * WORK
            assert {headers[b"retry-after"] for code, headers, _ in answers if code == 503} == {b"1"}
            assert answers[0][0] == 200

    asyncio.run(burst())


def test_no_more_wait_than_may() -> None:
    app, _ = shedding(ServingSettings(maximum_waiting=10))

    async def burst() -> None:
        answers = await asyncio.gather(*(asked(app) for _ in range(30)))
        assert Counter(code for code, _, _ in answers) == {200: 10, 503: 20}

    asyncio.run(burst())


def test_in_a_lasting_overload_the_answered_wait_little_and_its_end_is_the_end() -> None:
    """Twice as many requests as can be answered: once it has lasted for longer than a burst, waits are short."""
    tasks: list[asyncio.Task[None]] = []
    waits: list[tuple[float, int, float]] = []  # seconds since the beginning, status, seconds until the answer

    def arrive() -> None:
        if clock() - began < 3:
            tasks.extend(asyncio.create_task(one()) for _ in range(2))

    app, clock = shedding(ServingSettings(maximum_wait_seconds=0.4, overload_wait_seconds=0.05), arrive)
    began = clock()

    async def one() -> None:
        came = clock()
        code, _, at = await asked(app)
        waits.append((came - began, code, at - came))

    async def load() -> None:
        arrive()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
        ended = clock()
        assert (await asked(app))[0] == 200
        assert clock() - ended == pytest.approx(WORK)

    asyncio.run(load())
    lasting = [(code, wait) for came, code, wait in waits if came > 1]
    assert max(wait for code, wait in lasting if code == 200) < 0.05 + 2 * WORK
    assert sum(code == 200 for code, _ in lasting) == pytest.approx(len(lasting) / 2, rel=0.05)
    assert clock() - began < 3 + 0.05 + 2 * WORK


def test_whoever_watches_is_not_refused() -> None:
    app, _ = shedding(ServingSettings(maximum_wait_seconds=1e-9))

    async def watch() -> None:
        answers = await asyncio.gather(*(asked(app, "/health") for _ in range(20)))
        assert {code for code, _, _ in answers} == {200}

    asyncio.run(watch())


def test_those_that_wait_for_a_thread_are_counted() -> None:
    async def forever(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    app = Shedding(forever, ServingSettings(maximum_wait_seconds=0.05))

    async def fill() -> None:
        waiting = [asyncio.create_task(asked(app, "/events")) for _ in range(MAXIMUM_RUNNING)]
        await asyncio.sleep(0.02)
        assert (await asked(app, "/events"))[0] == 503
        waiting[0].cancel()
        taken = asyncio.create_task(asked(app, "/events"))
        await asyncio.sleep(0.3)
        assert not taken.done()
        for task in [*waiting, taken]:
            task.cancel()

    asyncio.run(fill())


def test_what_is_sent_slowly_takes_no_place() -> None:
    app, _ = shedding(ServingSettings(request_seconds=0.2))
    codes: list[int] = []

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            codes.append(message["status"])

    async def fill() -> None:
        scope = {"type": "http", "path": "/candidates", "method": "POST", "headers": []}
        slow = [asyncio.create_task(app(dict(scope), never, send)) for _ in range(2 * MAXIMUM_RUNNING)]
        await asyncio.sleep(0.01)
        assert (await asked(app))[0] == 200
        await asyncio.gather(*slow)

    asyncio.run(fill())
    assert codes == [408] * 2 * MAXIMUM_RUNNING


def test_whoever_takes_an_answer_slowly_keeps_no_place() -> None:
    app, _ = shedding(ServingSettings())

    async def never(message: Message) -> None:
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.request"}

    async def fill() -> None:
        scope = {"type": "http", "path": "/candidates", "method": "POST", "headers": []}
        slow = [asyncio.create_task(app(dict(scope), receive, never)) for _ in range(2 * MAXIMUM_RUNNING)]
        assert (await asked(app))[0] == 200
        for task in slow:
            task.cancel()

    asyncio.run(fill())


def test_who_hangs_up_before_the_request_is_whole_is_not_answered() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    app, _ = shedding(ServingSettings())
    asyncio.run(app({"type": "http", "path": "/candidates", "headers": []}, receive, send))


def test_a_body_in_parts_arrives_whole() -> None:
    parts = [{"type": "http.request", "body": part, "more_body": part != b"c"} for part in (b"a", b"b", b"c")]
    seen: list[bytes] = []

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            seen.append(message["body"])
            if not message["more_body"]:
                return

    async def ask() -> None:
        waiting = iter(parts)

        async def receive() -> Message:
            return next(waiting)

        async def send(message: Message) -> None: ...

        await Shedding(reading, ServingSettings())(
            {"type": "http", "path": "/candidates", "headers": []}, receive, send
        )

    asyncio.run(ask())
    assert b"".join(seen) == b"abc"


def test_an_allowance_fills_evenly() -> None:
    allowance = Allowance(4)
    assert [allowance.take(100.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [allowance.take(100.5) for _ in range(4)] == [True, True, False, False]
    assert [allowance.take(200.0) for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.slow
def test_the_service_says_when_to_come_again(ran: Ran) -> None:
    settings = Settings(home=ran.home.root).with_value("serving.requests_per_second", 2)
    app: FastAPI = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answers = [client.post("/candidates", json={"user_id": "u"}) for _ in range(6)]
        assert [answer.status_code for answer in answers[:2]] == [200, 200]
        assert answers[-1].status_code == 429
        assert answers[-1].headers["retry-after"] == "1"
        assert 'path="/candidates",status="429"' in client.get("/metrics").text

"""Publisher, store and service killed, the clock's day changing: in the end it is as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.publication import Served
from settings import Settings
from tests import processes
from tests.assets.compare import assert_same_day
from tests.assets.test_publication import assert_store_is
from tests.assets.world import ADSEQ, DAYS, LATER, PUBLISHED, copy_of, days_of, environment, execute
from tests.flow import Ran
from tests.processes import PROJECT, Started
from tests.serving.answers import Answer, answers, answers_of, asking
from tests.serving.running import PATIENCE, ask, connects, free_port, service, wait_for
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.online import LmdbStore, open_store
from warehouse.online.publication import served
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
DELAYS = (0.0, 0.01, 0.03, 0.08, 0.2)  # seconds from when a publication begins; a whole one takes half of one
ADVERTISERS = ("advertiser_embeddings", "advertiser_candidates")
# The assets that events and impressions lead to.
EVENTLESS = ("events", "impressions", "data_quality", *PUBLISHED, *ADVERTISERS, "daily_recall")


@pytest.fixture(scope="module")
def expected(day_later: Ran) -> dict[str, Answer]:
    found = answers(day_later)
    assert len({str(items) for _, _, items in found.values()}) > 10  # answers that differ can be told apart
    return found


@pytest.fixture
def unpublished(ran: Ran, day_later: Ran, tmp_path: Path) -> Ran:
    """The home of a day later with the store as it was before the day was published."""
    home = copy_of(day_later.home, tmp_path / "home")
    shutil.rmtree(home.online)
    shutil.copytree(ran.home.online, home.online)
    return Ran(home, "")


def publisher(home: Home, **settings: str) -> Started:
    """A publication of the later day, about to begin."""
    code = "from tests.assets.publisher import main; main()"
    process = processes.start(code, LATER.isoformat(), environment=environment(home) | settings)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_publisher_killed_at_any_point_leaves_what_can_be_served(
    unpublished: Ran, expected: dict[str, Answer]
) -> None:
    home = unpublished.home
    for delay in DELAYS:
        process = publisher(home)
        time.sleep(delay)
        process.kill()
        process.communicate()
        store = LmdbStore(home.online)
        now = Served.newest(home.root, store)  # whole, whichever day it is
        assert now.publication.day in (DAYS[-1], LATER)
        assert all(len(items) == 20 for _, _, items in answers_of(now, store, asking(unpublished)).values())
        store.close()
    process = publisher(home)
    assert process.wait(PATIENCE) == 0
    assert_store_is(home, "item-1", LATER)
    assert answers(unpublished) == expected


@contextmanager
def redis_at(port: int, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that writes every change to its disk before it answers."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    arguments = [program, "--port", str(port), "--dir", str(directory), "--save", "", "--appendonly", "yes"]
    with subprocess.Popen([*arguments, "--appendfsync", "always"], stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: connects(port))
            yield server
        finally:
            server.kill()


def test_a_redis_killed_while_it_is_written_to(unpublished: Ran, expected: dict[str, Answer], tmp_path: Path) -> None:
    """The publication fails and says what to do; run again on the server with whatever it kept, it is whole."""
    home, port, killed = unpublished.home, free_port(), 0
    url = f"redis://127.0.0.1:{port}/0"
    for delay in DELAYS:
        with redis_at(port, tmp_path) as server:
            process = publisher(home, ADSEQ_ONLINE__STORE=url)
            time.sleep(delay)
            server.kill()
            _, said = process.communicate(timeout=PATIENCE)
            if process.returncode:
                killed += 1
                assert process.returncode == 3
                assert f"127.0.0.1:{port}/0 does not answer" in said
        with redis_at(port, tmp_path):
            store = open_store(url, home)
            publication = served(store)
            assert publication is None or publication.day == LATER  # a half is not served
            store.close()
    assert killed
    with redis_at(port, tmp_path):
        process = publisher(home, ADSEQ_ONLINE__STORE=url)
        assert process.wait(PATIENCE) == 0
        assert answers(unpublished, url) == expected


def test_a_running_service_follows_and_drops_no_request(
    ran: Ran, unpublished: Ran, expected: dict[str, Answer]
) -> None:
    """Asked all the time while a day is published. Meanwhile states may be newer than the index, nothing else."""
    home, port, users = unpublished.home, free_port(), asking(ran)
    during: list[Any] = []
    with service(home, port):
        process = publisher(home)
        while not during or during[-1]["day"] != LATER.isoformat():
            during += [ask(port, "/candidates", {"user_id": user, "k": 20}) for user in users]
            assert None not in during
        assert process.wait(PATIENCE) == 0
        after = {user: ask(port, "/candidates", {"user_id": user, "k": 20}) for user in users}
    assert {len(answer["candidates"]) for answer in during} == {20}
    days = [answer["day"] for answer in during]
    assert set(days) == {DAYS[-1].isoformat(), LATER.isoformat()}
    assert days == sorted(days)
    for user, answer in after.items():
        items = [item for item, _ in expected[f"{user} at home"][2]]
        assert [each["item_id"] for each in answer["candidates"]] == items


def test_without_the_store_events_are_taken_and_the_rest_says_when_to_come_again(
    unpublished: Ran, tmp_path: Path
) -> None:
    home, port = unpublished.home, free_port()
    url = f"redis://127.0.0.1:{port}/0"
    settings = Settings(home=home.root).with_value("online.store", url)
    event = {"event_id": "1", "user_id": "newcomer", "event_time": f"{LATER}T10:00:00Z", "event_name": "custom"}
    with redis_at(port, tmp_path):
        process = publisher(home, ADSEQ_ONLINE__STORE=url)
        assert process.wait(PATIENCE) == 0
        client = TestClient(create_app(settings), base_url="http://127.0.0.1")
        client.__enter__()
    try:
        refused = client.post("/candidates", json={"user_id": "newcomer"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "online store" in refused.json()["detail"]
        taken = client.post("/events", json={"events": [event]}).json()
        assert (taken["accepted"], taken["refreshed"]) == (1, False)
        assert [path.read_text().count("newcomer") for path in home.landing.rglob("live-*.jsonl")] == [1]
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        with redis_at(port, tmp_path):
            assert client.post("/candidates", json={"user_id": "newcomer"}).status_code == 200
    finally:
        client.__exit__(None, None, None)


def test_a_service_killed_under_load_keeps_every_event_that_it_took(
    day_later: Ran, tmp_path: Path, expected: dict[str, Answer]
) -> None:
    home, port = copy_of(day_later.home, tmp_path / "home"), free_port()
    ran, taken, stop = Ran(home, ""), [], threading.Event()
    chair = day_later.tables.scan("items").select("item_id").sort("item_id").collect()["item_id"][0]

    def post(worker: int) -> None:
        number = 0
        while not stop.is_set():
            user = f"live-{worker}-{number}"
            event = {
                "event_id": user,
                "user_id": user,
                "event_time": datetime.now(UTC).isoformat(),
                "event_name": "page_visit",
                "item_id": chair,
            }
            answer = ask(port, "/events", {"events": [event]})
            if answer is not None and answer["accepted"]:
                taken.append(user)
            number += 1

    with service(home, port) as process:
        workers = [threading.Thread(target=post, args=(number,)) for number in range(3)]
        for worker in workers:
            worker.start()
        wait_for(lambda: len(taken) >= 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with service(home, port):
        wait_for(lambda: len(taken) >= 120)
        stop.set()
        for worker in workers:
            worker.join()
        known = [ask(port, "/history", {"user_id": user})["events"] for user in taken]
        assert all(len(events) == 1 for events in known)
        assert ask(port, "/candidates", {"user_id": taken[0]})["basis"] == "history"
    lines = [line for path in home.landing.rglob("live-*.jsonl") for line in path.read_bytes().splitlines()]
    assert set(taken) <= {json.loads(line)["event_id"] for line in lines}
    assert answers(ran) == expected  # nobody else noticed


def test_a_day_without_events_is_published(ran: Ran, tmp_path: Path) -> None:
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    landing = Landing(home.landing)
    for path in landing.files(LandingTable.events, LATER):
        pl.read_parquet(path).clear().write_parquet(path)
    execute(home, days_of([LATER], EVENTLESS))
    assert_store_is(home, "item-1", LATER)
    before, after = answers(ran), answers(Ran(home, ""))
    assert {basis for basis, _, _ in after.values()} == {basis for basis, _, _ in before.values()}
    assert {day for _, day, _ in after.values()} == {LATER.isoformat()}


def test_the_clock_s_day_changes_nothing(ran: Ran, day_later: Ran, expected: dict[str, Answer], tmp_path: Path) -> None:
    """The run of a day goes over midnight, years later: what it does depends on the landing zone."""
    program = shutil.which("faketime")
    if program is None:
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    done = subprocess.run(
        [program, "2031-12-31 23:59:50", sys.executable, "-c", ADSEQ, "run"],
        cwd=PROJECT,
        env=environment(home) | {"TZ": "UTC", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_day(day_later.tables, Tables(home.tables), LATER, ["item-1"])
    assert answers(Ran(home, "")) == expected

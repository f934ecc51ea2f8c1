"""How fast does the candidate service answer, and how fast is it filled?

A publication of 100,000 items and a million users, states of random numbers (what a state says changes no time), served
by ``adseq serve`` in one process, asked by another one at a constant rate: a request is sent when it is due, whether or
not the ones before have come back, so a stall shows in the latency of all that were due in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from assets.publishing import catalogue_frame
from benchmarks.report import Table, at_least, at_most
from ml.artifact import ModelArtifact
from ml.dataset import build_dataset
from ml.index import build_index, save_index
from ml.inference import embed_items
from ml.tensors import CatalogueTensors
from ml.training import new_network
from settings import Precision, Settings
from warehouse.home import Home
from warehouse.online import LmdbStore
from warehouse.online.publication import SEQUENCES, Publication
from warehouse.online.records import STATE_HEADER, json_rows, stamp_of, state_rows
from warehouse.world.catalogue import build_catalogue
from warehouse.world.settings import WorldSettings

DISK, HALF = 0, -1  # among the counts of states: no state, but as many bytes; everybody's in half precision
HALF_SHELF = "states-half"
BLOCKS_A_COMMIT = 24  # megabytes that 20,000 states are
CHANGED = (10_000, 100_000)  # states written again, as on a day
OVERLOAD_SECONDS, CLOSED_SECONDS, CLOSED_CONNECTIONS = 10, 5, 16
ITEMS, USERS, LISTED = 100_000, 1_000_000, 100
RATES = (50, 100, 200)
SECONDS, WARM_UP_SECONDS = 20, 5
DAY = date(2026, 3, 1)
ADVERTISERS = "advertisers-1"
WANTED = 50
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """Answers to a constant rate of requests."""

    rate: float
    latencies: Seconds  # seconds, from when a request was due
    failed: int
    stages: dict[str, float]  # mean seconds a request
    inside: float  # mean seconds a request, as the service has it

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.latencies, share) * 1e3)

    @property
    def overhead(self) -> float:
        """What is not a stage, over the stages."""
        return self.inside / sum(self.stages.values()) - 1


def run(home: Home, console: Console) -> Table:
    """Build, fill, serve, ask."""
    os.environ["ADSEQ_HOME"] = str(home.root)
    written = publish(home, console)
    with serving(home) as port:
        loads = [asyncio.run(load(port, rate)) for rate in RATES]
        events = asyncio.run(post_events(port))
        overload = asyncio.run(overloaded(port))
    table = table_of(written, loads, events, overload)
    table.show(console)
    return table


def publish(home: Home, console: Console) -> dict[int, float]:
    """Write a publication into ``home``. Returns the seconds that so many states took, those of everybody first."""
    settings = Settings()
    console.print(f"Building a catalogue of {ITEMS:,} items and its index ...")
    world = WorldSettings(initial_items=ITEMS, new_items_per_day=0, advertisers=5_000)
    items = build_catalogue(world, 0).frame(np.arange(ITEMS), 0)
    random = np.random.default_rng(0)
    people = [f"u{number:07d}" for number in range(2_000)]
    midnight = datetime.combine(DAY, datetime.min.time(), UTC)
    log = pl.DataFrame(
        {
            "user_id": np.repeat(people, 10),
            "event_time": pl.Series(np.sort(random.integers(0, 60 * 86_400, 20_000))).cast(pl.Duration("us"))
            + midnight,
            "event_name": "page_visit",
            "item_id": items["item_id"].gather(random.integers(0, ITEMS, 20_000)),
            "advertiser_id": pl.Series([None] * 20_000, dtype=pl.String),
        }
    ).sort("user_id", "event_time")
    nobody = pl.DataFrame(schema={"user_id": pl.String, "age": pl.Int32, "gender": pl.String, "country": pl.String})
    names = ["page_visit", "add_to_cart", "checkout"]
    dataset = build_dataset(log, items, nobody, settings.features, names)
    network = new_network(dataset, settings).eval()
    statistics = dataset.statistics.at(dataset.log.end)
    embeddings = embed_items(network, CatalogueTensors(dataset.features), statistics)
    ModelArtifact(network, dataset.basis, settings, names, dataset.log.end).save(home.models / "item-1" / "deployed")
    started = time.perf_counter()
    index = build_index(embeddings, settings.index)
    console.print(f"  {type(index).__name__} in {time.perf_counter() - started:.0f} s")
    save_index(home.indexes / "item-1", index, dataset.features.item_ids.to_list(), "item-1", DAY)
    home.served.mkdir(exist_ok=True)
    catalogue_frame(dataset.features.to_frame(statistics), items).write_parquet(home.served / "catalogue.parquet")
    store, publication = LmdbStore(home.online), _publication()
    written = _fill(store, publication, network.state_width, items, midnight, console)
    store.turn_sign(publication.to_bytes())
    store.close()
    return written


def _publication() -> Publication:
    return Publication(
        model_version="item-1",
        day=DAY,
        model=Path("models/item-1/deployed"),
        index=Path("indexes/item-1"),
        catalogue=Path("served/catalogue.parquet"),
        advertiser_version="1",
        precision=Settings().online.precision,
        time_zone="UTC",
        repeats_count=False,
        published_at=datetime.now(UTC),
    )


def _fill(
    store: LmdbStore, publication: Publication, width: int, items: pl.DataFrame, midnight: datetime, console: Console
) -> dict[int, float]:
    """States of everybody and again of some, lists and sequences of a tenth. Returns the seconds of writing states."""
    random, stamp = np.random.default_rng(1), stamp_of(midnight)
    states = pl.DataFrame(
        {
            "user_id": [f"u{number:07d}" for number in range(USERS)],
            "stamp": np.full(USERS, stamp),
            "day": pl.Series([DAY]).new_from_index(0, USERS),
            "events": np.full(USERS, 10),
            "last_event_time": pl.Series([midnight], dtype=pl.Datetime("us", "UTC")).new_from_index(0, USERS),
            "state": pl.Series(random.standard_normal((USERS, width), np.float32)).cast(pl.List(pl.Float32)),
        }
    )
    os.sync()  # what was built before is not to be written meanwhile
    seconds = {DISK: _disk_seconds(store.root, USERS * (STATE_HEADER.size + 4 * width))}
    started = time.perf_counter()
    store.put(HALF_SHELF, state_rows(states, Precision.float16))
    seconds[HALF] = time.perf_counter() - started
    store.clear(HALF_SHELF)
    os.sync()
    for count in (USERS, *CHANGED):
        some = states if count == USERS else states.sample(count, seed=count)
        started = time.perf_counter()
        assert store.put(publication.states, state_rows(some, publication.precision)) == count
        seconds[count] = time.perf_counter() - started
    few = states.select("user_id", "stamp").gather_every(10)
    advertisers = items["advertiser_id"].drop_nulls().unique().sort()
    listed = advertisers.gather(random.integers(0, len(advertisers), LISTED * len(few)))
    lists = few.with_columns(
        advertiser_ids=listed.reshape((len(few), LISTED)).cast(pl.List(pl.String)), scores=pl.lit([0.0])
    )
    store.put(ADVERTISERS, json_rows(lists, ("advertiser_ids", "scores")))
    seen = items["item_id"].gather(random.integers(0, ITEMS, 10 * len(few))).reshape((len(few), 10))
    told = {name: seen.cast(pl.List(pl.String)) for name in ("event_id", "item_id", "advertiser_id")}
    history = few.with_columns(event_time=pl.lit([stamp] * 10), event_name=pl.lit(["page_visit"] * 10), **told)
    store.put(SEQUENCES, json_rows(history, ("event_id", "event_time", "event_name", "item_id", "advertiser_id")))
    console.print(f"  {USERS:,} states in {seconds[USERS]:.1f} s")
    return seconds


def _disk_seconds(directory: Path, size: int) -> float:
    """Writing so many bytes to a file and waiting for the disk as often as the store does: the floor of publishing."""
    block, path, started = os.urandom(2**20), directory / "floor", time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for number in range(size // len(block)):
            file.write(block)
            if number % BLOCKS_A_COMMIT == 0:
                file.flush()
                os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
    path.unlink()
    return time.perf_counter() - started


@contextmanager
def serving(home: Home) -> Iterator[int]:
    """``adseq serve`` in a process of its own; its port."""
    port = 18_080
    command = [sys.executable, "-c", "from pipelines.cli import app; app()", "serve", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, "ADSEQ_HOME": str(home.root)}) as service:
        try:
            for _ in range(1200):
                if service.poll() is not None:
                    raise RuntimeError(f"adseq serve ended with {service.returncode} before it was ready")
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready"):
                        break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            yield port
        finally:
            service.terminate()


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
        status, content, head = await connections.exchange("POST", "/candidates", body)
        whole = status == 200 and content.count(b'"item_id"') == WANTED
        return Answer(due, time.perf_counter() - due, status, whole, b"retry-after" in head.lower())

    began, running = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(one(due)))
    return await asyncio.gather(*running)


def request_of(random: np.random.Generator) -> dict[str, object]:
    """Somebody beside some item."""
    return {
        "user_id": f"u{random.integers(0, USERS):07d}",
        "surface": "related_pins",
        "subject_item_id": f"i{random.integers(0, ITEMS):06d}",
        "k": WANTED,
    }


@dataclass(frozen=True)
class Overload:
    """Twice as many requests as can be answered, and the time after it."""

    sustainable: float  # requests a second that are answered when some connections ask one after the other
    offered: float
    answered: float  # a second
    p99: float  # seconds, of what was answered
    refused: int
    refused_without_saying_when: int
    other: int  # neither answered nor refused
    recovered: float  # seconds after the overload until everything is answered, and in time


async def overloaded(port: int) -> Overload:
    """Find what is sustainable, offer twice as much, then 200 a second again."""
    connections, random = Connections(port), np.random.default_rng(0)
    counts = [0] * CLOSED_CONNECTIONS
    end = time.perf_counter() + CLOSED_SECONDS

    async def one_after_the_other(number: int) -> None:
        while time.perf_counter() < end:
            counts[number] += (await connections.ask("POST", "/candidates", request_of(random)))[0] == 200

    await asyncio.gather(*(one_after_the_other(number) for number in range(CLOSED_CONNECTIONS)))
    sustainable = sum(counts) / CLOSED_SECONDS
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
        offered=2 * sustainable,
        answered=len(good) / OVERLOAD_SECONDS,
        p99=float(np.percentile([each.latency for each in good], 99)),
        refused=len(refused),
        refused_without_saying_when=sum(not each.says_when for each in refused),
        other=len(answers) - len(good) - len(refused),
        recovered=max([0.0, *late]),
    )


async def load(port: int, rate: float) -> Load:
    """Ask at a constant rate."""
    connections = Connections(port)
    await asked(port, connections, rate, WARM_UP_SECONDS)
    before = (await connections.ask("GET", "/metrics"))[1].decode()
    answers = await asked(port, connections, rate, SECONDS)
    after = (await connections.ask("GET", "/metrics"))[1].decode()
    connections.close()
    stages = {name: _mean(before, after, f'adseq_stage_seconds_{{}}{{{{stage="{name}"}}}}') for name in _stages(after)}
    inside = _mean(before, after, 'adseq_request_seconds_{}{{path="/candidates",status="200"}}')
    latencies = np.array([each.latency for each in answers])
    return Load(rate, latencies, sum(not each.whole for each in answers), stages, inside)


class Connections:
    """Kept-alive HTTP connections. A client library takes longer to ask than the service to answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and content."""
        return (await self.exchange(method, path, body))[:2]

    async def exchange(self, method: str, path: str, body: object = None) -> tuple[int, bytes, bytes]:
        """Status, content and header."""
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
    """The mean of a histogram's new values."""

    def value(text: str, part: str) -> float:
        name = series.format(part)
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)

    total, count = (value(after, part) - value(before, part) for part in ("sum", "count"))
    return total / count if count else 0.0


async def post_events(port: int, count: int = 300) -> Seconds:
    """From sending an event to its answer, after which the next request knows it; one after the other."""
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


def table_of(written: dict[int, float], loads: list[Load], events: Seconds, overload: Overload) -> Table:
    """All figures."""
    states_a_second = USERS / written[USERS]
    fastest = loads[-1]
    event = float(np.percentile(events, 99) * 1e3)
    stages = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in fastest.stages.items())
    return Table(
        "The candidate service: one process, 100,000 items, 1,000,000 users, 50 candidates beside an item",
        ("", *(f"{load.rate:g}/s" for load in loads), "target"),
        (
            ("p50, ms", *(f"{load.percentile(50):.1f}" for load in loads), ""),
            ("p99, ms", *(f"{load.percentile(99):.1f}" for load in loads), at_most(fastest.percentile(99), 15, " ms")),
            ("failed or short", *(f"{load.failed}" for load in loads), ""),
            (
                "what is no stage, over the stages",
                *(f"{load.overhead:.0%}" for load in loads),
                at_most(fastest.overhead, 0.4),
            ),
            ("POST /events, p99, ms", "", "", f"{event:.1f}", at_most(event, 50, " ms")),
            ("states into LMDB a second", "", "", f"{states_a_second:,.0f}", at_least(states_a_second, 200_000)),
            (
                "… in half precision",
                "",
                "",
                f"{USERS / written[HALF]:,.0f}",
                at_least(USERS / written[HALF], 200_000),
            ),
            (
                "… seconds; to write as many bytes to a file",
                "",
                "",
                f"{written[USERS]:.1f}; {written[DISK]:.1f}",
                "",
            ),
            *(
                (f"{count:,} changed states of {USERS:,}, seconds", "", "", f"{written[count]:.2f}", "")
                for count in CHANGED
            ),
            ("requests/s that it can answer", "", "", f"{overload.sustainable:.0f}", ""),
            (
                f"asked {overload.offered:.0f}/s: answered a second",
                "",
                "",
                f"{overload.answered:.0f}",
                at_least(overload.answered, 0.8 * overload.sustainable, "/s"),
            ),
            ("… p99 of these, ms", "", "", f"{overload.p99 * 1e3:.0f}", ""),
            (
                "… refused with Retry-After, without, anything else",
                "",
                "",
                f"{overload.refused - overload.refused_without_saying_when:,}, "
                f"{overload.refused_without_saying_when}, {overload.other}",
                "",
            ),
            (
                "… seconds until all is answered in 50 ms again",
                "",
                "",
                f"{overload.recovered:.2f}",
                at_most(overload.recovered, 1, " s"),
            ),
        ),
        (
            f"Milliseconds a stage at {fastest.rate:g}/s: {stages}; the whole request inside the service "
            f"{fastest.inside * 1e3:.2f}.",
            "The asking process shares the machine's cores with the service.",
        ),
    )

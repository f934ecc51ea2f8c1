"""How fast does the candidate service answer, what does a request cost, and how fast is the service filled?

A publication (``benchmarks/publication.py``), served by ``adseq serve`` in one process, asked by another one
(``benchmarks/load_generator.py``).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
from rich.console import Console

from benchmarks.load_generator import RATES, RUNS, Load, Overload, Seconds, load, overloaded, post_events
from benchmarks.publication import CHANGED, DISK, HALF, USERS, publish
from benchmarks.report import Table, at_least, at_most
from warehouse.home import Home

CPU_MS, P99_MS, REQUESTS_A_SECOND = 1.5, 10, 500  # targets


def run(home: Home, console: Console) -> Table:
    """Build, fill, serve and ask."""
    os.environ["ADSEQ_HOME"] = str(home.root)
    written = publish(home, console)
    with serving(home) as service:
        port, process = service.port, service.process
        loads = [asyncio.run(load(port, rate, process)) for rate in (*RATES[:-1], *[RATES[-1]] * RUNS)]
        events = asyncio.run(post_events(port))
        overload = asyncio.run(overloaded(port, process))
        memory = process.memory_info().rss / 2**20
    started = f"Ready after {service.seconds:.1f} s; {memory:,.0f} MiB."
    table = table_of(written, loads, events=events, overload=overload, started=started)
    table.show(console)
    return table


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        seconds: from the start of the process until it was ready.
    """

    port: int
    process: psutil.Process
    seconds: float


@contextmanager
def serving(home: Home) -> Iterator[Service]:
    """Yield an ``adseq serve`` in a process of its own."""
    port, started = 18_080, time.perf_counter()
    command = [sys.executable, "-c", "from pipelines.cli.app import app; app()", "serve", "--port", str(port)]
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
            yield Service(port, psutil.Process(service.pid), time.perf_counter() - started)
        finally:
            service.terminate()


def table_of(
    written: dict[int, float], loads: list[Load], *, events: Seconds, overload: Overload, started: str
) -> Table:
    """Return all figures.

    Args:
        loads: one run of each rate, and ``RUNS`` of the last one, of which the columns have the median.
        started: a note on the start of the service.
    """
    runs = loads[-RUNS:]
    median = sorted(runs, key=_p99)[RUNS // 2]
    cpu = float(np.median([each.cpu for each in runs])) * 1e3
    event = float(np.percentile(events, 99) * 1e3)
    stages = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in median.stages.items() if seconds)
    return Table(
        "The candidate service: one process, 100,000 items, 1,000,000 users, 50 candidates beside an item",
        ("", *(f"{rate:g}/s" for rate in RATES), "target"),
        (
            *_load_rows([*loads[:-RUNS], median], runs, cpu),
            _row("POST /events, p99, ms", f"{event:.1f}", at_most(event, 50, " ms")),
            *_store_rows(written),
            *_overload_rows(overload),
        ),
        (
            f"Milliseconds a stage at {median.rate:g}/s: {stages}; the whole request inside the service "
            f"{median.inside * 1e3:.2f}.",
            started,
            f"At {median.rate:g}/s: {RUNS} runs, the medians. The asking process shares the machine's cores with the "
            "service.",
        ),
        {
            "a request beside an item at 200/s, CPU ms": f"{cpu:.2f}",
            "requests/s of one process, at most": f"{overload.sustainable:.0f}",
            "p99 at 200/s in five runs, ms": ", ".join(f"{_p99(each):.1f}" for each in runs),
        },
    )


Row = tuple[str, ...]


def _row(name: str, value: str, target: str = "") -> Row:
    """Return a row whose value stands in the column of the last rate."""
    return name, *[""] * (len(RATES) - 1), value, target


def _p99(load: Load) -> float:
    return load.percentile(99)


def _load_rows(shown: list[Load], runs: list[Load], cpu: float) -> list[Row]:
    """Return the rows of the constant rates.

    Args:
        shown: a run of each rate. runs: all runs of the last rate.
        cpu: the median of their milliseconds.
    """
    slowest = max(map(_p99, runs))
    return [
        (
            "CPU of the service a request, ms",
            *(f"{load.cpu * 1e3:.2f}" for load in shown[:-1]),
            f"{cpu:.2f}",
            at_most(cpu, CPU_MS, " ms"),
        ),
        ("p50, ms", *(f"{load.percentile(50):.1f}" for load in shown), ""),
        ("p99, ms", *(f"{_p99(load):.1f}" for load in shown), ""),
        _row(
            f"p99 of {RUNS} runs, ms",
            ", ".join(f"{_p99(each):.1f}" for each in runs),
            at_most(slowest, P99_MS, " ms in each"),
        ),
        ("failed or short", *(f"{load.failed}" for load in shown[:-1]), f"{sum(each.failed for each in runs)}", ""),
        ("what is no stage, over the stages", *(f"{load.overhead:.0%}" for load in shown), ""),
    ]


def _store_rows(written: dict[int, float]) -> list[Row]:
    """Return the rows of the store's filling: number of states -> seconds."""
    whole, half = USERS / written[USERS], USERS / written[HALF]
    return [
        _row("states into LMDB a second", f"{whole:,.0f}", at_least(whole, 200_000)),
        _row("… in half precision", f"{half:,.0f}", at_least(half, 200_000)),
        _row("… seconds; to write as many bytes to a file", f"{written[USERS]:.1f}; {written[DISK]:.1f}"),
        *(_row(f"{count:,} changed states of {USERS:,}, seconds", f"{written[count]:.2f}") for count in CHANGED),
    ]


def _overload_rows(overload: Overload) -> list[Row]:
    refused = overload.refused - overload.refused_without_saying_when
    return [
        _row(
            "requests/s that it can answer",
            f"{overload.sustainable:.0f}",
            at_least(overload.sustainable, REQUESTS_A_SECOND, "/s"),
        ),
        _row("… CPU of the service a request, ms", f"{overload.cpu * 1e3:.2f}"),
        _row(
            f"asked {overload.offered:.0f}/s: answered a second",
            f"{overload.answered:.0f}",
            at_least(overload.answered, 0.8 * overload.sustainable, "/s"),
        ),
        _row("… p99 of these, ms", f"{overload.p99 * 1e3:.0f}"),
        _row(
            "… refused with Retry-After, without, closed without an answer, anything else",
            f"{refused:,}, {overload.refused_without_saying_when}, {overload.closed}, {overload.other}",
        ),
        _row(
            "… seconds until all is answered in 50 ms again",
            f"{overload.recovered:.2f}",
            at_most(overload.recovered, 1, " s"),
        ),
    ]

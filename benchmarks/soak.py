"""Many days in a row: does anything grow that should not?

``python -m benchmarks soak`` writes a small world, then runs its days one by one with ``adseq run``, each in a process
of its own as a schedule would, while one ``adseq serve`` answers requests all the time. In the middle a new model is
trained and promoted; snapshots are compacted and old catalogues removed on the way. Memory and disk are drawn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.report import Table
from ml.figures.style import RESOLUTION
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.retention import sizes
from warehouse.states import USER_STATES
from warehouse.tables import Tables
from warehouse.world import WorldSettings, write_world

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "soak.png"
WORLD = WorldSettings(history_days=120, initial_users=2_000, initial_items=1_500, advertisers=150, impression_days=30)
COMPACTION_DAYS, KEEP_DAYS = 8, 7
# Small and quick: what a model is worth does not matter here. Every new version passes the gate.
SETTINGS = {
    "ADSEQ_MODEL__WIDTH": "32",
    "ADSEQ_TRAINING__EPOCHS": "1",
    "ADSEQ_TRAINING__EPOCH_EXAMPLES": "5000",
    "ADSEQ_ADVERTISERS__EPOCHS": "1",
    "ADSEQ_ADVERTISERS__EPOCH_EXAMPLES": "3000",
    "ADSEQ_EVALUATION__ORACLE_FUTURES": "5",
    "ADSEQ_EVALUATION__ORACLE_FUNNELS": "5",
    "ADSEQ_GATE__RECALL_TOLERANCE": "1",
    "ADSEQ_GATE__DIVERSITY_TOLERANCE": "1",
    "ADSEQ_INFERENCE__COMPACTION_DAYS": str(COMPACTION_DAYS),
    "ADSEQ_DATA__KEEP_DAYS": str(KEEP_DAYS),
    "ADSEQ_DATA__KEEP_VERSIONS_DAYS": "0",  # a month passes in minutes here
    "ADSEQ_RELEVANCE__PROBES": "500",  # as in the demo; the default asks for as long as the rest of a day takes
}
DAYS = 30
PORT, REQUESTS_A_SECOND = 18_081, 20
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Day:
    """The figures of a home and its service after one day."""

    day: date
    seconds: float
    run_memory: int  # bytes, the peak of the run's process
    service_memory: int  # bytes
    room: dict[str, int]  # bytes by part of the home
    partitions_behind: int  # partitions of states that a snapshot reads
    served: str  # model version and day


@dataclass
class Asking:
    """A client that never stops."""

    answered: int = 0
    failed: int = 0
    versions: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        random = np.random.default_rng(0)
        while not self.stop.wait(1 / REQUESTS_A_SECOND):
            found = ask("/candidates", {"user_id": f"u{random.integers(0, 2_000):06d}", "k": 20})
            if found and len(found["candidates"]) == 20:
                self.answered += 1
                self.versions.add(found["model_version"])
            else:
                self.failed += 1


def ask(path: str, body: object = None) -> Any:
    """Return the service's answer; None where there is none."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def adseq(home: Home, *arguments: str) -> tuple[float, int]:
    """Run the command to its end. Returns seconds and the peak of the command's memory in bytes."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, "-c", "from pipelines.cli.app import app; app()", *arguments]
    environment = {**os.environ, **SETTINGS, "ADSEQ_HOME": str(home.root)}
    with tempfile.TemporaryFile() as output:
        process = psutil.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
        if process.wait():
            output.seek(0)
            raise RuntimeError(f"adseq {' '.join(arguments)} failed:\n{output.read().decode()[-4000:]}")
    return time.perf_counter() - started, peak


@contextmanager
def serving(home: Home) -> Iterator[psutil.Process]:
    """Yield the process of an ``adseq serve`` that is ready."""
    command = [sys.executable, "-c", "from pipelines.cli.app import app; app()", "serve", "--port", str(PORT)]
    environment = {**os.environ, **SETTINGS, "ADSEQ_HOME": str(home.root)}
    with psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while ask("/ready") is None:
                time.sleep(0.2)
            yield process
        finally:
            process.terminate()


def soak(home: Home, days: int, console: Console) -> tuple[list[Day], Asking]:
    """Run the history, then ``days`` days, with a new champion in the middle."""
    landing, asking, found = Landing(home.landing), Asking(), []
    write_world(landing, WORLD, days + 1)  # the first with the history
    first = WORLD.first_daily_day
    adseq(home, "run", "--days", str(first))
    with serving(home) as service:
        client = threading.Thread(target=asking.run, daemon=True)
        client.start()
        for number in range(1, days + 1):
            day = first + timedelta(days=number)
            seconds, memory = adseq(home, "run", "--days", str(day))
            if number == days // 2:
                adseq(home, "run", "--days", str(day), "--retrain", "--again")
            found.append(_after(home, day, seconds, memory=memory, service=service))
            last = found[-1]
            total = sum(last.room.values()) / MEBIBYTE
            console.print(
                f"{day}: {seconds:.0f} s, run {memory / MEBIBYTE:.0f} MiB, service "
                f"{last.service_memory / MEBIBYTE:.0f} MiB, home {total:.0f} MiB, {last.partitions_behind} partitions, "
                f"{last.served}",
                highlight=False,
            )
        asking.stop.set()
        client.join()
    return found, asking


def _after(home: Home, day: date, seconds: float, *, memory: int, service: psutil.Process) -> Day:
    ready, tables = None, Tables(home.tables)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # the service looks every two seconds
        ready = ask("/ready")
        if ready and ready["day"] == str(day):
            break
        time.sleep(0.5)
    assert ready is not None
    version = str(ready["model_version"])
    where = {"model_version": version}
    compacted = f"{USER_STATES}_compacted"
    written = tables.days(compacted, "day", where) if tables.exists(compacted) else []
    behind = [each for each in tables.days(USER_STATES, "day", where) if each > max(written, default=date.min)]
    served = f"{version} as of {ready['day']}"
    return Day(day, seconds, memory, service.memory_info().rss, sizes(home), len(behind), served)


def drawn(days: Sequence[Day]) -> Figure:
    """Return a figure of the memory of both processes and of the disk by part, by day."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    memory, disk = figure.subplots(2, 1, sharex=True)
    at = [each.day for each in days]
    memory.plot(at, [each.run_memory / MEBIBYTE for each in days], label="a day's run, at its peak")
    memory.plot(at, [each.service_memory / MEBIBYTE for each in days], label="the service")
    memory.set(ylabel="Memory, MiB", ylim=(0, None), title=f"{len(days)} days in a row")
    parts = sorted({part for each in days for part in each.room}, key=lambda part: -days[-1].room.get(part, 0))
    parts = [part for part in parts if part != "landing"]
    heights = [[each.room.get(part, 0) / MEBIBYTE for each in days] for part in parts]
    disk.stackplot(at, heights, labels=parts)
    disk.set(ylabel="Disk, MiB")
    for before, after in pairwise(days):
        if before.served.split()[0] != after.served.split()[0]:
            for axes in (memory, disk):
                axes.axvline(after.day, color="#66727f", linewidth=0.8, linestyle=":")
            memory.annotate("promotion", (after.day, 0), textcoords="offset points", xytext=(4, 6), fontsize=8)
    dates = ConciseDateFormatter(disk.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
    disk.xaxis.set_major_formatter(dates)
    for axes in (memory, disk):
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def table_of(days: Sequence[Day], asking: Asking) -> Table:
    """Return the first third against the last: a bounded quantity is level."""
    third = max(1, len(days) // 3)
    early, late = days[:third], days[-third:]
    parts = [part for part in days[-1].room if part != "landing"]

    def row(name: str, first: Sequence[float], last: Sequence[float], unit: float = MEBIBYTE) -> tuple[str, ...]:
        return name, f"{np.mean(first) / unit:,.1f}", f"{np.mean(last) / unit:,.1f}"

    def growth(part: str) -> str:
        sizes_late = [each.room.get(part, 0) for each in late]
        return f"{(sizes_late[-1] - sizes_late[0]) / max(len(late) - 1, 1) / MEBIBYTE:+.2f} a day"

    rows = [
        (*row("a day's run, seconds", [d.seconds for d in early], [d.seconds for d in late], 1), ""),
        (*row("a day's run, peak memory, MiB", [d.run_memory for d in early], [d.run_memory for d in late]), ""),
        (*row("the service, memory, MiB", [d.service_memory for d in early], [d.service_memory for d in late]), ""),
        *(
            (
                *row(f"{part}, MiB", [d.room.get(part, 0) for d in early], [d.room.get(part, 0) for d in late]),
                growth(part),
            )
            for part in parts
        ),
    ]
    return Table(
        f"{len(days)} days in a row, with a promotion on the way",
        ("", f"first {third} days", f"last {third} days", "at the end"),
        tuple(rows),
        (
            f"Partitions of states behind a snapshot: at most {max(d.partitions_behind for d in days)} "
            f"(compaction after {COMPACTION_DAYS}). Catalogues and indexes are kept for {KEEP_DAYS} days.",
            f"Meanwhile the service answered {asking.answered:,} requests and failed {asking.failed}, under "
            f"{', '.join(sorted(asking.versions))}.",
        ),
    )


def run(home: Home, console: Console) -> Table:
    """Run a month, draw the picture and return the table."""
    days, asking = soak(home, DAYS, console)
    drawn(days).savefig(PICTURE, dpi=RESOLUTION)
    table = table_of(days, asking)
    table.show(console)
    return table

"""What do sequences and full inference cost on one core, and on a Ray cluster of one node and of two nodes of one core?

Every part of a stage runs on one thread, in this process and on a node, so that the engines have the same means. Each
engine runs the stages once before it is measured, so that its processes have imported the libraries.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.encode import encode_everyone
from assets.steps.versions import ModelVersion
from benchmarks.events import EVENTS_A_USER
from benchmarks.growth import DAY_BEFORE, Shape, prepare, record_versions
from benchmarks.ray_cluster import running
from benchmarks.report import Table, at_least, at_most
from settings import EngineKind, EngineSettings, SequenceSettings, Settings
from warehouse.home import Home
from warehouse.states import USER_STATES
from warehouse.stored_sequences import TABLE, write_sequences

SHAPE = Shape(active=1_000, items=10_000, history=5_000_000)
STAGES = ("sequences", "full inference")
BUCKET_EVENTS = 500_000  # ten parts: two nodes share five in three turns, so that a second one is worth 1.67 at best
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Run:
    """The stages on one engine.

    Attributes:
        seconds: of each stage.
        memory: MiB at the highest of a process of the cluster, its own; None for the engine of this process.
        rows: a hash of the rows of each stage.
    """

    name: str
    seconds: tuple[float, ...]
    memory: float | None
    rows: tuple[int, ...]


def run(console: Console) -> tuple[list[Run], Table]:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory)).create()
        os.environ |= {"ADSEQ_HOME": str(home.root), "ADSEQ_DATA__BUCKET_EVENTS": str(BUCKET_EVENTS)}
        workspace = Workspace.from_environment()
        console.print(f"{SHAPE} ...", highlight=False)
        version = prepare(workspace, SHAPE)
        record_versions(workspace, version)
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
        here = EngineSettings()
        stages(here, version)
        runs = [measure("this process", here, version, console)]
        with running(1) as (cluster, _):
            engine = EngineSettings(kind=EngineKind.ray, address=cluster.address)
            stages(engine, version)
            runs.append(measure("Ray, one node", engine, version, console))
            cluster.add_node()
            cluster.wait_for(2)
            stages(engine, version)
            runs.append(measure("Ray, two nodes", engine, version, console))
    table = table_of(runs)
    table.show(console)
    return runs, table


def measure(name: str, engine: EngineSettings, version: ModelVersion, console: Console) -> Run:
    """Run the stages on an engine."""
    with highest_memory() as memory:
        seconds = stages(engine, version)
    tables = Workspace.from_environment().tables
    rows = []
    for table, partition in ((TABLE, {}), (USER_STATES, {"model_version": version.name})):
        frame = tables.read(table, {**partition, "day": DAY_BEFORE})
        rows.append(int(frame.hash_rows(seed=0).sum()))
    console.print(f"  {name}: {', '.join(f'{each:.1f}' for each in seconds)} s", highlight=False)
    return Run(name, seconds, memory.of_nodes / MEBIBYTE if memory.of_nodes else None, tuple(rows))


def stages(engine: EngineSettings, version: ModelVersion) -> tuple[float, ...]:
    """Run both stages; return the seconds of each."""
    workspace = Workspace(Settings(engine=engine))
    tables, landing, data = workspace.tables, workspace.landing, workspace.settings.data
    begun = time.perf_counter()
    write_sequences(tables, landing, DAY_BEFORE, shape=SequenceSettings(), data=data, engine=workspace.engine)
    between = time.perf_counter()
    encode_everyone(workspace, version)
    return between - begun, time.perf_counter() - between


@dataclass
class Highest:
    """The highest memory of a process' own so far, in bytes."""

    of_run: int = 0  # this process
    of_nodes: int = 0  # of all processes of the cluster


@contextmanager
def highest_memory() -> Iterator[Highest]:
    """Yield the highest memory while the block runs."""
    highest, ended, run = Highest(), threading.Event(), os.getpid()

    def watch() -> None:
        while not ended.wait(0.5):
            for process in psutil.process_iter():
                try:
                    if process.pid == run:
                        highest.of_run = max(highest.of_run, _own(process))
                    elif process.name().startswith("ray::"):
                        highest.of_nodes = max(highest.of_nodes, _own(process))
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        ended.set()
        watcher.join()


def _own(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def table_of(runs: list[Run]) -> Table:
    """Return the seconds of each engine, the overhead of a cluster, and the gain of a second node."""
    here, one, two = runs
    rows = []
    for number, stage in enumerate(STAGES):
        seconds = [each.seconds[number] for each in runs]
        equal = "yes" if len({each.rows[number] for each in runs}) == 1 else "NO"
        overhead, gain = seconds[1] / seconds[0], seconds[1] / seconds[2]
        ratios = f"{overhead:.2f}, {at_most(overhead, 1.3)}", f"{gain:.2f}, {at_least(gain, 1.7)}"
        rows.append((stage, *(f"{each:.1f}" for each in seconds), *ratios, equal))
    memory = max(each.memory or 0.0 for each in (one, two))
    return Table(
        "The same stages in one process and on a cluster, in seconds",
        ("", here.name, one.name, two.name, "one node / process", "one node / two nodes", "equal rows"),
        tuple(rows),
        (
            f"{SHAPE.history:,} events of {SHAPE.history // EVENTS_A_USER:,} users, {SHAPE.items:,} items, an untrained"
            f" model; buckets of {BUCKET_EVENTS:,} events, one thread a process, nodes of one core. The run makes the "
            "commits, on the cores of the nodes.",
            f"A process of the cluster takes at most {memory:,.0f} MiB of its own.",
        ),
    )

"""How much memory do the processes of a cluster of two nodes take, up to two million users?"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import polars as pl
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.versions import ModelVersion
from benchmarks.events import EVENTS_A_USER
from benchmarks.growth import DAY_BEFORE, Shape, prepare
from benchmarks.ray_cluster import running
from benchmarks.report import Table, at_most
from benchmarks.scale import MEBIBYTE, STAGES, highest_memory, stages
from settings import EngineKind, EngineSettings
from warehouse.home import Home
from warehouse.states import USER_STATES
from warehouse.stored_sequences import TABLE
from warehouse.tables import Tables

SHAPES = tuple(Shape(active=1_000, items=10_000, history=events) for events in (10_000_000, 20_000_000, 40_000_000))
LIMIT = 2048  # MiB


@dataclass(frozen=True)
class Taken:
    """What both stages took on two nodes of one core; memory is the highest of a process' own, in MiB."""

    shape: Shape
    seconds: tuple[float, ...]
    of_run: float
    of_nodes: float


def run(console: Console) -> tuple[list[Taken], Table]:
    """Measure and print."""
    taken = [measure(shape, console) for shape in SHAPES]
    table = table_of(taken)
    table.show(console)
    return taken, table


def measure(shape: Shape, console: Console) -> Taken:
    """Run sequences and full inference of a home of this shape on two nodes."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory)).create()
        os.environ["ADSEQ_HOME"] = str(home.root)
        console.print(f"{shape} ...", highlight=False)
        # In a process of its own: memory that the preparation took is not what the stages take.
        with get_context("spawn").Pool(1) as pool:
            version = pool.apply(_prepared, (shape,))
        with running(2) as (cluster, _), highest_memory() as memory:
            seconds = stages(EngineSettings(kind=EngineKind.ray, address=cluster.address), version)
        users = shape.history // EVENTS_A_USER
        for name, partition in ((TABLE, {}), (USER_STATES, {"model_version": version.name})):
            day = [pl.col(column) == value for column, value in {**partition, "day": DAY_BEFORE}.items()]
            found = Tables(home.tables).scan(name).filter(*day).select(pl.len()).collect().item()
            assert found == users, f"{name} has {found:,} rows for {users:,} users"
        taken = Taken(shape, seconds, memory.of_run / MEBIBYTE, memory.of_nodes / MEBIBYTE)
        console.print(f"  {taken}", highlight=False)
        return taken


def _prepared(shape: Shape) -> ModelVersion:
    return prepare(Workspace.from_environment(), shape)


def table_of(taken: list[Taken]) -> Table:
    """Return the seconds of each stage and the memory of the processes, by size."""
    rows = [
        (
            f"{each.shape.history // EVENTS_A_USER:,} users, {each.shape.history:,} events",
            *(f"{seconds:.0f}" for seconds in each.seconds),
            f"{each.of_run:,.0f}",
            f"{each.of_nodes:,.0f}",
            at_most(max(each.of_run, each.of_nodes), LIMIT, " MiB"),
        )
        for each in taken
    ]
    return Table(
        "Memory on a cluster of two nodes",
        ("", *(f"{stage}, s" for stage in STAGES), "the run, MiB", "a process of a node, MiB", "limit"),
        tuple(rows),
        ("10,000 items, an untrained model, nodes of one core, one thread a process. The highest of a process' own.",),
    )

"""How much memory do the steps take that read every user, every event or every list? Each is a process of its own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rich.console import Console

from assets.common.workspace import Workspace
from benchmarks.events import EVENTS_A_USER
from benchmarks.export_ratio import point_to
from benchmarks.growth import DAY_BEFORE, Shape, prepare, record_versions
from benchmarks.report import Table, at_most
from benchmarks.subprocess_cost import (
    Cost,
    advertiser_lists,
    daily_recall,
    export_lists,
    full_inference,
    index_check,
    item_statistics,
    measured,
    publication,
)
from warehouse.home import Home

SHAPES = (Shape(active=10_000, items=10_000, history=4_000_000), Shape(active=50_000, items=10_000, history=20_000_000))
GIBIBYTE = 1024  # MiB
STEPS = {
    full_inference: "full inference",
    index_check: "index and its check",
    advertiser_lists: "everybody's advertiser lists",
    publication: "publication of everybody",
    item_statistics: "item statistics",
    daily_recall: "daily recall",
    export_lists: "export of everybody's lists",
}
BEFORE_COMMIT = "dfbb078"
# MiB at the larger size (with 50,000 items), before these steps worked on some users at a time. The run of daily
# recall was ended early.
BEFORE = {"index and its check": "5,128", "daily recall": "≥ 3,865"}


def run(console: Console) -> tuple[list[dict[str, Cost]], Table]:
    """Measure and print."""
    sizes = [measure(shape, console) for shape in SHAPES]
    table = table_of(sizes)
    table.show(console)
    return sizes, table


def measure(shape: Shape, console: Console) -> dict[str, Cost]:
    """Return the cost of each step, in the order in which they need each other."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory)).create()
        console.print(f"{shape} ...", highlight=False)
        prepare_versions(home, shape)
        costs = {}
        for step, name in STEPS.items():
            costs[name] = measured(step.__name__, home.root)
            console.print(f"  {name}: {costs[name].seconds:.1f} s, {costs[name].memory:,.0f} MiB", highlight=False)
        return costs


def prepare_versions(home: Home, shape: Shape) -> None:
    """Ingest a log, and write an untrained version of either model that serves the day."""
    os.environ["ADSEQ_HOME"] = str(home.root)
    workspace = Workspace.from_environment()
    version = prepare(workspace, shape)
    advertisers = record_versions(workspace, version)
    point_to(home, version, DAY_BEFORE, advertisers.name)


def table_of(sizes: list[dict[str, Cost]]) -> Table:
    """Return MiB and seconds of each step, and what it took before."""
    rows = []
    for name in STEPS.values():
        largest = sizes[-1][name].memory
        memory = [f"{size[name].memory:,.0f}" for size in sizes]
        seconds = f"{sizes[-1][name].seconds:.0f}"
        rows.append((name, *memory, seconds, BEFORE.get(name, ""), at_most(largest / GIBIBYTE, 2, " GiB")))
    heads = [f"{shape.history // EVENTS_A_USER:,} users, MiB" for shape in SHAPES]
    return Table(
        "Memory of the steps that read everything",
        ("", *heads, "seconds", "before, MiB", "target"),
        tuple(rows),
        (
            f"{EVENTS_A_USER} events a user, {SHAPES[0].items:,} items, untrained models; the highest of the process' "
            f"own memory, imports included, mapped files not. Seconds and the column before ({BEFORE_COMMIT}) are of "
            "the larger size.",
        ),
        {"the largest step at 1 M users and 20 M events, MiB": f"{largest_of(sizes[-1]):,.0f}"},
    )


def largest_of(costs: dict[str, Cost]) -> float:
    """Return the memory of the step that takes the most, in MiB."""
    return max(cost.memory for cost in costs.values())

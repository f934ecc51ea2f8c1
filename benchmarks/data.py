"""From landing files to sequences, at three sizes: events a second, and memory that does not grow with the log."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.events import item_ids, write_log
from benchmarks.report import Table, at_least, at_most
from benchmarks.subprocess_cost import (
    Cost,
    all_sequences,
    ingest_history,
    measured,
    pandas_sequences,
    sorted_copy,
    validate_all,
)
from settings import Settings

SIZES = (1_000_000, 5_000_000, 20_000_000)
GIBIBYTE = 1024  # MiB
FILE_EVENTS = 5_000_000  # at most in one file


@dataclass(frozen=True)
class Size:
    """The costs of a log of so many events."""

    events: int
    ingest: Cost
    validate: Cost
    sequences: Cost
    pandas: Cost
    floor: Cost


def run(console: Console) -> tuple[list[Size], Table]:
    """Measure and print."""
    sizes = [measure(events, console) for events in SIZES]
    table = table_of(sizes)
    table.show(console)
    return sizes, table


def measure(events: int, console: Console) -> Size:
    """Measure each piece of work in a process of its own, one after the other."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        root = Path(directory)
        console.print(f"{events:,} events ...", highlight=False)
        write_log(root / "landing", events, item_ids(), parts=max(1, events // FILE_EVENTS))
        works = (ingest_history, validate_all, all_sequences, pandas_sequences, sorted_copy)
        costs = []
        for work in works:
            costs.append(measured(work.__name__, root))
            console.print(f"  {work.__name__}: {costs[-1].seconds:.1f} s, {costs[-1].memory:,.0f} MiB", highlight=False)
        shutil.rmtree(root / "sequences")
        return Size(events, *costs)


def table_of(sizes: list[Size]) -> Table:
    """Return the figures beside their targets."""
    largest, limit = sizes[-1], Settings().data.memory_gib
    rate = largest.events / largest.ingest.seconds
    validated = largest.events / largest.validate.seconds
    pandas = largest.pandas.seconds / largest.sequences.seconds
    floor = largest.sequences.seconds / largest.floor.seconds

    def rates(name: str) -> list[str]:
        return [f"{size.events / getattr(size, name).seconds:,.0f}" for size in sizes]

    def memory(name: str) -> list[str]:
        return [f"{getattr(size, name).memory:,.0f}" for size in sizes]

    gibibytes = largest.sequences.memory / GIBIBYTE
    return Table(
        "From landing files to sequences",
        ("", *(f"{size.events / 1e6:g} M events" for size in sizes), "target"),
        (
            ("ingestion, events/s", *rates("ingest"), at_least(rate, 700_000, "/s")),
            ("… MiB", *memory("ingest"), ""),
            ("`adseq validate`, events/s", *rates("validate"), at_least(validated, 500_000, "/s")),
            ("… MiB", *memory("validate"), ""),
            ("everybody's sequences, events/s", *rates("sequences"), ""),
            ("… MiB", *memory("sequences"), at_most(gibibytes, 4, " GiB")),
            ("the same in pandas, events/s", *rates("pandas"), at_least(pandas, 10, " ×")),
            ("… MiB", *memory("pandas"), ""),
            ("the floor: DuckDB reads, sorts, writes, events/s", *rates("floor"), at_most(floor, 1.3, " ×")),
            ("… MiB", *memory("floor"), ""),
        ),
        (
            f"`ADSEQ_DATA__MEMORY_GIB` is {limit:g}: what reading, checking and sorting may take. Memory is the "
            "highest of the process' own, imports included, mapped files not.",
            f"At {largest.events / 1e6:g} M events pandas takes {pandas:.1f} times as long as adseq, adseq "
            f"{floor:.2f} times as long as the floor. Parquet in files of {FILE_EVENTS / 1e6:g} M events; "
            "a table is as ingestion has left it, by user and time, which the floor and pandas gain from, too.",
        ),
        {
            "sequences at 20 M events, of DuckDB's floor": f"{floor:.2f} ×",
            "ingestion at 20 M events, events/s": f"{rate:,.0f}",
        },
    )

"""What does a day cost whose data are small? A day alone in its process, and a day that comes second in a process.

``python -m benchmarks small-day`` writes the small world of ``benchmarks.soak`` and trains on its history; then it runs
days with ``adseq run``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from rich.console import Console

from benchmarks.report import Table, at_most
from benchmarks.soak import SETTINGS, WORLD, adseq
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.world import write_world

ROUNDS = 3
CPU_LIMIT, MEMORY_LIMIT = 12, 600
KIBIBYTES = 2**10  # in a MiB


@dataclass(frozen=True)
class RunCost:
    """What a command takes, with all processes that it starts.

    Attributes:
        memory: MiB of the largest process at its peak.
    """

    cpu_seconds: float
    seconds: float
    memory: float


def run(home: Home, console: Console) -> Table:
    """Measure and print."""
    ones, twos = measure(home, console)
    table = table_of(ones, twos)
    table.show(console)
    return table


def measure(home: Home, console: Console) -> tuple[list[RunCost], list[RunCost]]:
    """Return the costs of runs of one day, and those of runs of two, by turns; each day is new."""
    write_world(Landing(home.landing), WORLD, 1 + 3 * ROUNDS)
    day, ones, twos = WORLD.first_daily_day, [], []
    console.print("Training on the history, and the first day ...")
    adseq(home, "run", "--days", str(day))
    for _ in range(ROUNDS):
        ones.append(cost(home, "run", "--days", str(day + timedelta(days=1))))
        twos.append(cost(home, "run", "--days", f"{day + timedelta(days=2)}..{day + timedelta(days=3)}"))
        day += timedelta(days=3)
        console.print(f"{day}: {ones[-1]}, {twos[-1]}", highlight=False)
    return ones, twos


def cost(home: Home, *arguments: str) -> RunCost:
    """Run the command to its end in a process of its own.

    Raises:
        RuntimeError: the command failed.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", "from pipelines.cli.app import app; app()", *arguments]
    environment = {**os.environ, **SETTINGS, "ADSEQ_HOME": str(home.root)}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)  # what the process and its children have used
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"adseq {' '.join(arguments)} failed:\n{output.read().decode()[-4000:]}")
    return RunCost(used.ru_utime + used.ru_stime, time.perf_counter() - started, used.ru_maxrss / KIBIBYTES)


def table_of(ones: list[RunCost], twos: list[RunCost]) -> Table:
    """Return the medians, and what the second day of a process adds."""
    one, two = (
        [float(np.median([getattr(each, name) for each in runs])) for name in ("cpu_seconds", "seconds", "memory")]
        for runs in (ones, twos)
    )
    return Table(
        "A small day",
        ("", "CPU seconds", "seconds", "MiB at the peak"),
        (
            ("a day in a process of its own", *(f"{value:,.1f}" for value in one)),
            ("… target", at_most(one[0], CPU_LIMIT), "", at_most(one[2], MEMORY_LIMIT)),
            (
                "a second day in the same process",
                f"{two[0] - one[0]:,.1f}",
                f"{two[1] - one[1]:,.1f}",
                f"{two[2]:,.1f}",
            ),
        ),
        (
            f"`adseq run` on the world of the month below, medians of {ROUNDS} runs of one day and of two days; the "
            "second day is the difference. All assets with all pictures, 500 probes; a relevance model is trained when "
            "its labels have become more by a tenth, about every third day here. CPU seconds with those of child "
            "processes.",
        ),
        {"a small day, CPU seconds": f"{one[0]:,.1f}", "a small day, MiB at the peak": f"{one[2]:,.0f}"},
    )

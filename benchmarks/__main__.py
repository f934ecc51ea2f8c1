"""``python -m benchmarks`` runs every benchmark and rewrites docs/performance.md; names (``day``) run only those."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.headlines import record
from benchmarks.report import PERFORMANCE, Table, machine, rewrite
from warehouse.home import Home

# Name -> module, in the order in which they run: ``loading`` before torch is imported and a world is in memory.
ALONE = {
    "loading": "startup",
    "data": "data",
    "growth": "growth",
    "scale": "scale",
    "scale-memory": "scale_memory",
    "export": "export_ratio",
    "memory": "memory",
    "masks": "masks",
    "million-items": "million_items",
    "market": "market",
}
IN_A_HOME = {"small-day": "small_day", "serving": "serving", "soak": "soak"}
ON_THE_WORLD = {"training": "training", "accelerator": "accelerator", "inference": "inference", "day": "day"}
NAMES = (*ALONE, *IN_A_HOME, *ON_THE_WORLD)


def main(names: list[str]) -> int:
    """Run the named benchmarks, all without a name. Returns the exit code."""
    console = Console()
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        console.print(f"There is no benchmark {unknown[0]!r}. There are: {', '.join(NAMES)}.", highlight=False)
        return 2
    wanted = [name for name in NAMES if name in names or not names]
    where = machine()
    console.print(where, highlight=False)
    for name in wanted:
        if name in ALONE:
            _write(name, _module(ALONE[name]).run(console)[1], where)
        elif name in IN_A_HOME:
            with TemporaryDirectory(prefix=f"adseq-{name}-") as directory:
                _write(name, _module(IN_A_HOME[name]).run(Home(Path(directory)).create(), console), where)
    if on_the_world := [name for name in wanted if name in ON_THE_WORLD]:
        with _module("world").written_world(console) as world:
            for name in on_the_world:
                _write(name, _module(ON_THE_WORLD[name]).run(world, console)[1], where)
    console.print(f"Written to {PERFORMANCE}.", highlight=False, soft_wrap=True)
    return 0


def _write(name: str, table: Table, where: str) -> None:
    rewrite(name, table, where)
    record(table.headlines)


def _module(name: str) -> Any:
    return import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

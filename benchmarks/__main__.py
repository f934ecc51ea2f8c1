"""``python -m benchmarks`` runs every benchmark and rewrites docs/performance.md; names (``day``) run only those."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.report import PERFORMANCE, machine, rewrite
from warehouse.home import Home

NAMES = ("loading", "data", "small-day", "growth", "masks", "market", "training", "inference", "day", "serving", "soak")


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
    with ExitStack() as stack:
        if "loading" in wanted:  # before torch is imported and the world is in memory
            from benchmarks import startup as loading

            rewrite("loading", loading.run(console)[1], where)
        if "data" in wanted:
            from benchmarks import data

            rewrite("data", data.run(console)[1], where)
        if "small-day" in wanted:
            from benchmarks import small_day

            with TemporaryDirectory(prefix="adseq-benchmark-") as directory:
                rewrite("small-day", small_day.run(Home(Path(directory)).create(), console), where)
        if "growth" in wanted:
            from benchmarks import growth

            rewrite("growth", growth.run(console)[1], where)
        if "masks" in wanted:
            from benchmarks import masks

            rewrite("masks", masks.run(console)[1], where)
        if "market" in wanted:
            from benchmarks import market

            rewrite("market", market.run(console)[1], where)
        if "serving" in wanted:
            from benchmarks import serving

            with TemporaryDirectory(prefix="adseq-benchmark-") as directory:
                rewrite("serving", serving.run(Home(Path(directory)).create(), console), where)
        if "soak" in wanted:
            from benchmarks import soak

            with TemporaryDirectory(prefix="adseq-soak-") as directory:
                rewrite("soak", soak.run(Home(Path(directory)).create(), console), where)
        if set(wanted) - {"loading", "data", "small-day", "growth", "masks", "market", "serving", "soak"}:
            from benchmarks import day, inference, training
            from benchmarks.world import written_world

            world = stack.enter_context(written_world(console))
            for name, module in (("training", training), ("inference", inference), ("day", day)):
                if name in wanted:
                    rewrite(name, module.run(world, console)[1], where)
    console.print(f"Written to {PERFORMANCE}.", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

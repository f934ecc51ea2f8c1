"""Runs a day of a home again and again, killed with signal 9 each time some steps further, until it comes to its end.
Takes the day, the steps and the first point, by default 1 and 0: every point there is. Prints the points, one a line.

Every run is a process of its own, forked from one that has imported the libraries and used nothing of them: that is how
``tests/processes.py`` starts this one.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.instance import use_home
from settings import Settings
from warehouse.home import Home
from warehouse.online.lmdb_store import LmdbStore
from warehouse.tables import Tables

KILLED = "Killed"


class Killer:
    """Counts the points at which a process could die, and dies at one of them."""

    def __init__(self, last: int) -> None:
        self.last, self.reached = last, -1

    def point(self, name: str) -> None:
        self.reached += 1
        if self.reached == self.last:
            print(f"{KILLED} at point {self.last}, {name}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, named: Callable[..., str]) -> None:
        """Two points at each call: before it and after it."""
        original = getattr(owner, name)

        def killed(*arguments: Any, **keywords: Any) -> Any:
            self.point(f"before {named(*arguments)}")
            result = original(*arguments, **keywords)
            self.point(f"after {named(*arguments)}")
            return result

        setattr(owner, name, killed)

    def within_writes(self) -> None:
        """Two points at each write of a table: when its rows are with the writer and not committed, and afterwards."""
        original = Tables.write_batches

        def killed(
            tables: Tables, name: str, schema: pl.Schema, batches: Iterable[pl.DataFrame], partition: Any
        ) -> None:
            def ending() -> Iterator[pl.DataFrame]:
                yield from batches
                self.point(f"within {name}")

            original(tables, name, schema, ending(), partition)
            self.point(f"after {name}")

        Tables.write_batches = killed  # type: ignore[assignment, method-assign]
        self.around(Tables, "commit_files", lambda _, name, *__: f"the commit of {name}")


def main() -> None:
    """Kill the day that the process is given."""
    sys.exit(_kill(sys.argv[1], *map(int, sys.argv[2:])))


def _kill(day: str, steps: int = 1, first: int = 0) -> int:
    for last in range(first, 1000, steps):
        process = os.fork()
        if not process:
            killer = Killer(last)
            killer.within_writes()
            killer.around(os, "replace", lambda _, to: f"the replacement of {Path(to).name}")
            killer.around(LmdbStore, "put", lambda _, namespace, rows: f"putting {namespace}")
            killer.around(LmdbStore, "switch", lambda *_: "turning the pointer")
            sys.stderr = sys.__stderr__ = open(os.devnull, "w")  # type: ignore[misc] # noqa: SIM115
            use_home(Home(Settings().home))
            from pipelines.cli.app import app

            try:
                os._exit(app(["run", "--days", day], standalone_mode=False) or 0)
            except Exception:
                traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
                os._exit(1)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
    return 1

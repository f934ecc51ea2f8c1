"""How long does Dagster take to load the definitions, and the UI to answer?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.report import Table, at_most
from pipelines.cli.ui import DAGSTER_PORT, HOST, UiProcess, dagster_command, free_port, stop
from pipelines.instance import PROJECT, use_home
from warehouse.home import Home

ROUNDS = 5
PATIENCE_SECONDS = 120.0
HEAVY = ("torch", "lightning", "mlflow")
IMPORT = f"""
import sys, time
started = time.perf_counter()
import pipelines.definitions
seconds = time.perf_counter() - started
import json
print(json.dumps([seconds, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


@dataclass(frozen=True)
class LoadingTime:
    """Seconds (medians of fresh processes)."""

    definitions: float
    process: float  # the same with the interpreter's start and end
    heavy: tuple[str, ...]  # of torch, lightning, mlflow: what was imported
    dg_dev: float


def run(console: Console) -> tuple[LoadingTime, Table]:
    """Measure and print."""
    loading = measure()
    table = table_of(loading)
    table.show(console)
    return loading, table


def measure() -> LoadingTime:
    """Import in fresh processes on an empty home, then start ``dg dev`` on that home."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory))
        try:
            use_home(home)
            imports, processes, heavy = zip(*(import_definitions() for _ in range(1 + ROUNDS)), strict=True)
            answering = [dg_dev_answers(home) for _ in range(3)]
        finally:
            os.environ.clear()
            os.environ.update(before)
    return LoadingTime(
        definitions=float(np.median(imports[1:])),
        process=float(np.median(processes[1:])),
        heavy=tuple(heavy[0]),
        dg_dev=float(np.median(answering)),
    )


def import_definitions() -> tuple[float, float, list[str]]:
    """Return the seconds of the import, of the whole process, and the heavy packages that were imported.

    Raises: RuntimeError: the definitions cannot be imported.
    """
    started = time.perf_counter()
    finished = subprocess.run([sys.executable, "-c", IMPORT], cwd=PROJECT, capture_output=True, text=True)
    process = time.perf_counter() - started
    if finished.returncode:
        raise RuntimeError(f"importing pipelines.definitions failed:\n{finished.stderr}")
    seconds, heavy = json.loads(finished.stdout)
    return seconds, process, heavy


def dg_dev_answers(home: Home) -> float:
    """Return the seconds from starting ``dg dev`` until its port answers HTTP, and stop ``dg dev``.

    Raises:
        TimeoutError: ``dg dev`` did not answer.
        ServiceFailed: ``dg dev`` died.
    """
    port = free_port(DAGSTER_PORT + 400)
    log = home.root / "dagster.log"
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            dagster_command(port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home.root,
            start_new_session=True,
        )
    service = UiProcess("Dagster", f"http://{HOST}:{port}", log, process)
    try:
        while not service.answers():
            service.check()
            if time.perf_counter() - started > PATIENCE_SECONDS:
                raise TimeoutError(f"dg dev does not answer after {PATIENCE_SECONDS:.0f} s:\n{log.read_text()}")
            time.sleep(0.05)
        return time.perf_counter() - started
    finally:
        stop([service])


def table_of(loading: LoadingTime) -> Table:
    """Return the figures beside their targets."""
    return Table(
        "Loading the definitions",
        ("what", "measured", "target"),
        (
            (
                "importing pipelines.definitions",
                f"{loading.definitions:.2f} s",
                at_most(loading.definitions, 2, " s"),
            ),
            ("the whole process, interpreter included", f"{loading.process:.2f} s", ""),
            (
                f"of {', '.join(HEAVY)} imported",
                ", ".join(loading.heavy) or "none",
                "none",
            ),
            ("`dg dev` answering on its port", f"{loading.dg_dev:.1f} s", at_most(loading.dg_dev, 8, " s")),
        ),
        (f"Median of {ROUNDS} fresh processes for the import, of 3 for `dg dev`; files in the page cache.",),
    )

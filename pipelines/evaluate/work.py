"""Directories for the checkpoints of an evaluation's trainings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from warehouse.home import Home

WORK = ".evaluate-"
"""Begins the name of a directory with the checkpoints of a process's trainings; the process id follows."""


@contextmanager
def work_directory(home: Home) -> Iterator[Path]:
    """Provide an empty directory beside the home's models; what killed evaluations left there is removed first."""
    home.models.mkdir(parents=True, exist_ok=True)
    _sweep(home.models)
    with tempfile.TemporaryDirectory(prefix=f"{WORK}{os.getpid()}-", dir=home.models) as work:
        yield Path(work)


def _sweep(models: Path) -> None:
    """Remove the work directories of evaluations that were killed."""
    for left in models.glob(f"{WORK}*-*"):
        process = left.name.removeprefix(WORK).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)

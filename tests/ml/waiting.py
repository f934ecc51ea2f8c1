"""A training whose fit takes for ever, in a process that takes the directory; fits that refuse and that die."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from lightning.pytorch.loggers import Logger

from ml.versions.side_by_side import FitJob, fit_workers
from ml.versions.tracking import TRAINING, Tracking

STARTED = "started"


def wait(marker: Path, directory: Path, *, logger: Logger | None, resume: Path | None) -> None:
    """Say that the fit has begun, and never end."""
    marker.touch()
    while True:
        time.sleep(1)


def refuse(directory: Path, *, logger: Logger | None, resume: Path | None) -> None:
    """Raise what a fit without examples raises."""
    raise LookupError("nothing to learn here")


def die(directory: Path, *, logger: Logger | None, resume: Path | None) -> None:
    """End as a process ends for which the memory does not suffice."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    directory = Path(sys.argv[1])
    tracking = Tracking(f"sqlite:///{directory / 'mlflow.db'}", directory / "artifacts")
    run_id = tracking.client.create_run(tracking.experiment(TRAINING)).info.run_id
    with fit_workers(at_once=2) as workers:
        fit = partial(wait, directory / STARTED)
        workers.start(FitJob("waits", directory / "fit", fit, tracking, run_id)).result()

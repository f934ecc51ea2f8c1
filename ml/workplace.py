"""Where a training works before its version has a number, and what it tells meanwhile; the same for both models."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger

from ml.learning import TrainingPeriod
from ml.tracking import TRAINING, Tracking

FIT = "fit"  # checkpoints, which no version keeps


@contextmanager
def workplace(models: Path, tracking: Tracking) -> Iterator[Path]:
    """A directory beside the versions, gone at the end unless ``keep`` moved it; what killed trainings left behind is
    cleaned up first. A home has one writer at a time."""
    models.mkdir(parents=True, exist_ok=True)
    tracking.close_abandoned(TRAINING)
    for left_behind in models.glob(".training-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".training-", dir=models))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def keep(work: Path, version: Path) -> None:
    """Move a finished training to the place of its version."""
    shutil.rmtree(work / FIT, ignore_errors=True)
    shutil.rmtree(version, ignore_errors=True)
    work.rename(version)


def announce(what: str) -> None:
    """Say which part of a training begins: there are several, and each takes a while."""
    print(f"    training: {what}", file=sys.stderr, flush=True)


def training_logger(tracking: Tracking, run_id: str) -> MLFlowLogger:
    """Where Lightning logs the curves of a run."""
    return MLFlowLogger(experiment_name=TRAINING, tracking_uri=tracking.uri, run_id=run_id)


def dataset_hash(period: TrainingPeriod) -> str:
    """A hash of the events that were learnt from: equal data, equal hash."""
    rows = period.events.hash_rows(seed=0).to_numpy()
    return f"{int(np.bitwise_xor.reduce(rows) if len(rows) else 0):016x}-{len(rows)}"

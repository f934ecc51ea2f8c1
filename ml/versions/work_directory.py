"""The working directory of a training before its version has a number, and the training's messages; for both models."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch.loggers import MLFlowLogger

from ml.training.checkpoints import last_checkpoint, load_own
from ml.versions.tracking import TRAINING, Tracking

FIT = "fit"  # checkpoints, which no version keeps
ENDED = "ended.pt"

FitType = TypeVar("FitType")


@contextmanager
def workplace(models: Path, tracking: Tracking, kind: str, fingerprint: str) -> Iterator[Path]:
    """Provide a directory beside the versions for a training.

    The training continues from the files that a killed training of the same ``fingerprint`` left in the directory. The
    directories that other trainings of this kind left are deleted. A home has one writer at a time.
    """
    models.mkdir(parents=True, exist_ok=True)
    tracking.close_abandoned(TRAINING)
    work = models / f".training-{kind}-{fingerprint}"
    for left_behind in models.glob(f".training-{kind}-*"):
        if left_behind != work:
            shutil.rmtree(left_behind, ignore_errors=True)
    work.mkdir(exist_ok=True)
    yield work


def fitted_once(directory: Path, train: Callable[[Path, Path | None], FitType]) -> FitType:
    """Return the fit that has ended in ``directory`` before; else fit.

    The fit goes on from the newest epoch in ``directory``, or begins from the start.

    Args:
        train: fits, given the directory of its checkpoints, and the checkpoint to go on from (None: from the start).
    """
    ended = directory / ENDED
    found = _loaded(ended)
    if found is not None:
        announce("… had ended before the interruption")
        return cast(FitType, found)
    newest = last_checkpoint(directory)
    checkpoint = _loaded(newest)
    if checkpoint is None:
        shutil.rmtree(directory, ignore_errors=True)
        fitted = train(directory, None)
    else:
        announce(f"… goes on after epoch {checkpoint['epoch'] + 1}")
        fitted = train(directory, newest)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".{ENDED}"
    torch.save(fitted, unfinished)
    unfinished.replace(ended)
    return fitted


def ended_fit(directory: Path) -> Any:
    """Return the fit that has ended in ``directory``.

    Raises:
        FileNotFoundError: no fit has ended there.
        pickle.UnpicklingError: the fit holds an object that no file of a training may hold (see ``load_own``).
    """
    return load_own(directory / ENDED)


def _loaded(path: Path) -> Any:
    """Return the object in a file of ours; None if the file is missing or half written, or the code has changed."""
    try:
        return load_own(path)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, AttributeError, ImportError):
        return None


def keep(work: Path, version: Path) -> None:
    """Move a finished training to the place of its version."""
    shutil.rmtree(work / FIT, ignore_errors=True)
    shutil.rmtree(version, ignore_errors=True)
    work.rename(version)


def announce(what: str) -> None:
    """Print the part of a training that begins: there are several parts, and each takes a while."""
    print(f"    training: {what}", file=sys.stderr, flush=True)


def training_logger(tracking: Tracking, run_id: str) -> MLFlowLogger:
    """Return the logger that sends the curves of Lightning to a run."""
    return MLFlowLogger(experiment_name=TRAINING, tracking_uri=tracking.uri, run_id=run_id)

"""Training that several processes share: what they are given, and what they leave for the process that waits.

Each process draws the same batches and takes its share of the rows (``ml.training.sampling.Place``). The first process
leaves the figures of the training in the directory of the fit, beside the checkpoint of the newest epoch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger

from engine.engine import Engine, Training

FIGURES = "figures.json"  # in the directory of the fit

Summary = dict[str, Any]


class Recorded(Logger):
    """Keeps the figures of the steps, so that the waiting process logs them: MLflow's database has one writer."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[tuple[dict[str, float], int | None]] = []

    @property
    def name(self) -> str | None:
        return None

    @property
    def version(self) -> int | str | None:
        return None

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning knows no parameters of a fit."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.figures.append((dict(metrics), step))


def train_together(
    engine: Engine, training: Training, *, processes: int, directory: Path, logger: Logger | None
) -> Summary:
    """Run ``training`` on the engine, log the figures that it has recorded, and return its summary.

    Raises:
        Exception: the exception that the training raised in one of the processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    engine.train(training, processes, directory)
    left = directory / FIGURES
    found = json.loads(left.read_text())
    left.unlink()
    if logger is not None:
        for metrics, step in found["figures"]:
            logger.log_metrics(metrics, step)
        logger.finalize("success")
    summary: Summary = found["summary"]
    return summary


def leave(directory: Path, summary: Summary, recorded: Recorded) -> None:
    """Leave the result of a training for ``train_together``."""
    (directory / FIGURES).write_text(json.dumps({"summary": summary, "figures": recorded.figures}))


def seed_of_process(seed: int, rank: int) -> None:
    """Begin the random numbers of a process: its dropout masks are its own, and the same for the same seed and rank."""
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0] >> 1))


def every_process(value: Any) -> list[Any]:
    """Return the values of all processes, by rank; the only one, where one process trains."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values

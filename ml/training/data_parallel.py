"""Training that several processes share: what they are given, and what they leave for the process that waits.

Each process draws the same batches and takes its share of the rows (``ml.training.sampling.Place``). The first process
leaves the figures of the steps and the summary in the directory of the fit, beside the checkpoint of the newest epoch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from engine.engine import Engine, Training

FIGURES = "figures.jsonl"  # in the directory of the fit, a line a step that is logged
SUMMARY = "summary.json"

Summary = dict[str, Any]


class Recorded(Logger):
    """Writes figures to the directory of a fit. The waiting process logs them: MLflow's database has one writer."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.file = directory / FIGURES

    @property
    def name(self) -> str | None:
        return None

    @property
    def version(self) -> int | str | None:
        return None

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning knows no parameters of a fit."""

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps([dict(metrics), step]) + "\n")


def train_together(
    engine: Engine, training: Training, *, processes: int, directory: Path, logger: Logger | None
) -> Summary:
    """Run ``training`` on the engine, and return its summary. The figures are logged also if the training raises.

    Raises:
        EngineFailed: a process of the training, or the cluster, has died.
        Exception: the exception that the training raised in one of the processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _log_recorded(directory, logger)  # of a run that was killed
    try:
        engine.train(training, processes, directory)
    finally:
        _log_recorded(directory, logger)
    left = directory / SUMMARY
    summary: Summary = json.loads(left.read_text())
    left.unlink()
    if logger is not None:
        logger.finalize("success")
    return summary


def _log_recorded(directory: Path, logger: Logger | None) -> None:
    """Log the figures that were recorded in ``directory``, and remove them."""
    file = directory / FIGURES
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    for line in lines:
        if logger is not None and line.endswith("\n"):  # else the process died while it wrote the line
            metrics, step = json.loads(line)
            logger.log_metrics(metrics, step)
    file.unlink(missing_ok=True)


def leave(directory: Path, summary: Summary) -> None:
    """Leave the summary of a training for ``train_together``."""
    (directory / SUMMARY).write_text(json.dumps(summary))


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

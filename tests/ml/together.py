"""Fits of two processes that are started once, because the start takes as long as many fits; and an engine of none."""

from __future__ import annotations

from pathlib import Path

from engine.engine import Member, Training
from engine.local import LocalEngine
from ml.training.checkpoints import last_checkpoint
from ml.training.fit import ALONE, take_part
from ml.training.item_task import ItemTask

EPOCHS = 2


def fit_all(tasks: dict[str, ItemTask], directory: Path, member: Member) -> None:
    """Fit each task in a directory of its name, and the task ``first`` again in ``parts`` with an interruption."""
    for name, task in tasks.items():
        take_part(task, EPOCHS, member, directory=directory / name, lines=None, resume=None)
    parts = directory / "parts"
    take_part(tasks["first"], 1, member, directory=parts, lines=None, resume=None)
    take_part(tasks["first"], EPOCHS, member, directory=parts, lines=None, resume=last_checkpoint(parts))


class InThisProcess(LocalEngine):
    """Trains in this process, which has all rows of a batch, however many processes are asked for."""

    def train(self, training: Training, processes: int, directory: Path) -> None:
        training(ALONE)

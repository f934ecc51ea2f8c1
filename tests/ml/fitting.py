"""A fit of some epochs in a process that can be killed. Takes the directory."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ml.examples.period import prepare
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from ml.versions.work_directory import fitted_once
from tests.ml.conftest import TRAINED_UNTIL
from tests.ml.worlds import instant, planted_period, small_settings

EPOCHS = 4


def main() -> None:
    directory = Path(sys.argv[1])
    torch.set_num_threads(1)
    settings, period = small_settings(), planted_period().until(instant(TRAINED_UNTIL))
    task = ItemTask.of(period, prepare(period, settings), settings)
    fitted = fitted_once(directory, lambda place, resume: fit(task, EPOCHS, place, resume=resume))
    torch.save(fitted.network.state_dict(), directory.with_suffix(".weights"))

"""The step of the script that measures an accelerator, on the CPU."""

from __future__ import annotations

import torch

from benchmarks.accelerator import step
from ml.examples.period import TrainingPeriod, prepare
from ml.training.fit import optimizer_of
from ml.training.item_task import ItemTask
from tests.ml.worlds import planted_period, small_settings


def test_a_step_in_bfloat16_learns() -> None:
    settings = small_settings()
    period: TrainingPeriod = planted_period(users=120)
    task = ItemTask.of(period, prepare(period, settings), settings)
    network, batch = task.network().train(), next(iter(task.batches()))
    optimizer = optimizer_of(network, settings.training)
    torch.manual_seed(0)
    losses = [float(step(task, network, optimizer, batch)) for _ in range(8)]
    assert losses[-1] < losses[0]

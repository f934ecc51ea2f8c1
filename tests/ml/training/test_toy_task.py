"""A third model is trained as the others are: a task and a network are all that ``fit`` needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ml.training.fit import fit
from tests.ml.toy_task import ITEMS, USERS, ToyTask
from tests.ml.worlds import small_settings


@pytest.mark.slow
def test_a_third_model_is_a_task_and_a_network(tmp_path: Path) -> None:
    settings = small_settings(training={"learning_rate": 0.3})
    network = fit(ToyTask(settings), 60, tmp_path, progress=False).network
    with torch.inference_mode():
        best = (network.users.weight @ network.items.weight.T).argmax(dim=1)
    assert (best == torch.arange(USERS) % ITEMS).float().mean() > 0.95

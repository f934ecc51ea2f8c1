"""A third model takes the course of the others: a task and a network are all that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ml.evaluation.metrics import Metrics
from ml.training.fit import fit
from settings import Settings
from tests.ml.worlds import small_settings

USERS, ITEMS = 64, 8


class ToyNetwork(nn.Module):
    """A vector a user and a vector an item."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, 4), nn.Embedding(ITEMS, 4)

    @property
    def temperature(self) -> Tensor:
        return torch.tensor(0.2)


@dataclass
class ToyBatches:
    """One batch an epoch: user ``u`` converts with item ``u % ITEMS``; every item is a corpus negative."""

    epoch: int = 0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Any:
        if number:
            raise IndexError
        user = torch.arange(USERS)
        return SimpleNamespace(
            user=user,
            candidate_rows=torch.cat([user % ITEMS, torch.arange(ITEMS)]),
            share=torch.full((USERS + ITEMS,), 1 / ITEMS),
            group=user,
            positive_keys=user * ITEMS + user % ITEMS,
            weight=torch.ones(USERS),
            corpus=ITEMS,
        )


@dataclass(frozen=True)
class ToyTask:
    """Learn which item each user converts with."""

    settings: Settings
    candidates: int = ITEMS
    monitor: str | None = None

    def network(self) -> ToyNetwork:
        return ToyNetwork()

    def batches(self) -> ToyBatches:
        return ToyBatches()

    def scores(self, network: ToyNetwork, batch: Any) -> Tensor:
        return network.users(batch.user) @ network.items(batch.candidate_rows).T

    def validate(self, network: ToyNetwork) -> Metrics:
        raise AssertionError("no figure is monitored")


def test_a_third_model_is_a_task_and_a_network(tmp_path: Path) -> None:
    settings = small_settings(training={"learning_rate": 0.3})
    network = fit(ToyTask(settings), 60, tmp_path, progress=False).network
    with torch.inference_mode():
        best = (network.users.weight @ network.items.weight.T).argmax(dim=1)
    assert (best == torch.arange(USERS) % ITEMS).float().mean() > 0.95

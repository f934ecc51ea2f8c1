"""A third model in two files: its network and task here, and what a version of it is in ``toy_version``."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml.evaluation.metrics import Metrics, evaluate
from ml.models.encoders import ModelShape
from ml.retrieval.lists import Positives, RankedLists
from ml.training.sampling import Place
from settings import Settings

USERS, ITEMS = 64, 8


SHAPE = ModelShape(graph=0, given=0, statistics=0, positions=1)


class ToyNetwork(nn.Module):
    """A vector a user and a vector an item."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = SHAPE
        self.users, self.items = nn.Embedding(USERS, 4), nn.Embedding(ITEMS, 4)

    @property
    def temperature(self) -> Tensor:
        return torch.tensor(0.2)


@dataclass
class ToyBatches:
    """One batch an epoch: user ``u`` converts with item ``u % ITEMS``; every item is a corpus negative."""

    epoch: int = 0
    place: Place = field(default_factory=Place)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Any:
        if number:
            raise IndexError
        own = self.place.rows(USERS)
        every = torch.arange(USERS)
        user = every[own]
        return SimpleNamespace(
            user=user,
            candidates=torch.cat([every % ITEMS, torch.arange(ITEMS)]),
            candidate_rows=torch.cat([every % ITEMS, torch.arange(ITEMS)]),
            blocks=[],
            corpus_negatives=ITEMS,
            share=torch.full((USERS + ITEMS,), 1 / ITEMS),
            group=user,
            positive_keys=user * ITEMS + user % ITEMS,
            weight=torch.ones(USERS)[own],
            corpus=ITEMS,
            first=own.start,
            whole_weight=torch.ones(USERS),
            processes=self.place.processes,
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

    def users(self, network: ToyNetwork, batch: Any) -> Tensor:
        found: Tensor = network.users(batch.user) / network.temperature
        return found

    def scores(self, network: ToyNetwork, users: Tensor, candidates: Tensor) -> Tensor:
        return users @ network.items(candidates).T

    def validate(self, network: ToyNetwork) -> Metrics:
        order = (network.users.weight @ network.items.weight.T).argsort(dim=1, descending=True)
        lists = RankedLists.from_rows(order.tolist(), depth=ITEMS)
        users = np.arange(USERS)
        return evaluate(lists, Positives.from_pairs(users, users % ITEMS, USERS), ITEMS, ks=[1])

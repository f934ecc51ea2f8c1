"""The head as a program of its own, so that a team can run the head in its own serving stack.

``torch.export`` keeps the computation and the weights in one file, and ``torch.export.load`` reads this file without
adseq. Besides the file, a request needs the stored states and the index directory: a FAISS file, the item ids of its
rows as Parquet, and a manifest with checksums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ml.features.items import CATEGORY_LEVELS, MAXIMUM_INTERESTS
from ml.models.item_model import ContextBatch, TwoTower
from settings import FeatureSettings

QUERIES = torch.export.Dim("queries", min=1, max=65_536)
DEMOGRAPHICS = 3


class QueryHead(nn.Module):
    """The head with its inputs side by side, in the order of ``inputs_of``."""

    def __init__(self, network: TwoTower) -> None:
        super().__init__()
        self.head = network.head

    def forward(
        self,
        state: Tensor,
        content: Tensor,
        category: Tensor,
        advertiser: Tensor,
        interests: Tensor,
        confidence: Tensor,
        present: Tensor,
        demographics: Tensor,
    ) -> Tensor:
        """Return the query embeddings [B, W + T + P]."""
        context = ContextBatch(content, category, advertiser, interests, confidence, present)
        found: Tensor = self.head(state, context, demographics)
        return found


def inputs_of(network: TwoTower, features: FeatureSettings, queries: int) -> dict[str, NDArray[Any]]:
    """Return example inputs of the head, with their names, types and widths: unknown users on the home feed.

    state and content: float32. category, advertiser, interests, demographics: int64 buckets, 0 unknown; category,
    advertiser and interests of the subject are as ``item_features`` has them. confidence: float32. present: bool,
    whether there is a context at all.
    """
    return {
        "state": np.zeros((queries, network.state_width), np.float32),
        "content": np.zeros((queries, network.shape.content), np.float32),
        "category": np.zeros((queries, CATEGORY_LEVELS), np.int64),
        "advertiser": np.zeros((queries, features.advertiser_hashes), np.int64),
        "interests": np.zeros((queries, MAXIMUM_INTERESTS), np.int64),
        "confidence": np.zeros((queries, MAXIMUM_INTERESTS), np.float32),
        "present": np.zeros(queries, bool),
        "demographics": np.zeros((queries, DEMOGRAPHICS), np.int64),
    }


def export_head(network: TwoTower, features: FeatureSettings, path: Path) -> None:
    """Write the head for any number of queries to ``path`` (.pt2)."""
    example = tuple(torch.from_numpy(values) for values in inputs_of(network, features, 2).values())
    shapes = tuple({0: QUERIES} for _ in example)
    program = torch.export.export(QueryHead(network.cpu()).eval(), example, dynamic_shapes=shapes)
    torch.export.save(program, path)

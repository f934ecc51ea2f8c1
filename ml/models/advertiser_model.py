"""The two towers of the advertiser model.

    events -> event embedding -> bidirectional transformer -> state      (the item model's encoder, trained anew)
    [state ; demographics] -> head -> user embedding                     (no context: advertisers are predicted daily)
    advertiser profile -> MLP -> advertiser embedding                    (daily, with the statistics)

People come back to their advertisers, and an MLP should not have to learn which of a million advertisers a user came
back to. Therefore each embedding has a memory part behind its learned part. The memory part of an advertiser is a fixed
random direction; that of a user is the mean of the directions of the distinct advertisers in the history, the newest
event of each weighted by a score that the encoder's output gives. A mean over all events would hold little but the
advertiser whose pages the user has visited most. The head sets the weight of a user's memory.

An advertiser's embedding has unit length, and the score is the inner product.

Shapes: B users, A advertisers, W width, D directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.features.advertisers import PRICE_COLUMNS, Profiles
from ml.models.blocks import (
    DEMOGRAPHIC_BUCKETS,
    RetrievalNetwork,
    Standardise,
    bag,
    hash_embedding,
    parts_by_lengths,
    perceptron,
    random_directions,
    zero_linear,
)
from ml.models.encoders import (
    ENCODERS,
    Encoded,
    EventBatch,
    HistoryMemory,
    ModelShape,
    SequenceBounds,
    SharedEmbeddings,
)
from settings import FeatureSettings, ModelSettings


@dataclass(frozen=True)
class AdvertiserBatch:
    """Tensors of advertisers."""

    hashes: Tensor  # [A, hashes]
    node: Tensor  # [nodes of all] category buckets, advertiser by advertiser
    node_share: Tensor  # [nodes of all] share of the advertiser's items below the node
    node_offset: Tensor  # [A] where each advertiser's nodes begin
    content: Tensor  # [A, content]
    levels: Tensor  # [A, price + size + statistics]


def advertiser_batch(profiles: Profiles) -> AdvertiserBatch:
    """Convert profiles to the tensors that the tower reads."""
    category = profiles.category
    levels = np.concatenate([profiles.price, profiles.size, profiles.statistics], axis=1)
    return AdvertiserBatch(
        hashes=torch.from_numpy(profiles.hashes),
        node=torch.from_numpy(category.indices.astype(np.int64)),
        node_share=torch.from_numpy(category.data.astype(np.float32)),
        node_offset=torch.from_numpy(category.indptr[:-1].astype(np.int64)),
        content=torch.from_numpy(profiles.content),
        levels=torch.from_numpy(levels),
    )


class Directions(nn.Module):
    """An advertiser as a fixed random direction: the sum of the directions of the hashes of the advertiser's id."""

    table: Tensor

    def __init__(self, settings: ModelSettings, features: FeatureSettings) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.register_buffer("table", random_directions(features.advertiser_buckets, settings.trait_dimensions, random))

    def forward(self, hashes: Tensor) -> Tensor:
        """Return unit vectors: [..., hashes] -> [..., D], zero where there is no advertiser."""
        return functional.normalize(bag(self.table, hashes), dim=-1)


class AdvertiserStateEncoder(nn.Module):
    """events -> state [B, W + D]: the summary, and the memory of advertisers."""

    def __init__(
        self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings, directions: Directions
    ) -> None:
        super().__init__()
        self.sequence = ENCODERS[settings.encoder](shape, settings, shared)
        self.directions, self.memory = directions, HistoryMemory(settings)
        self.remembers_newest = shape.remembers_newest

    def forward(self, events: EventBatch) -> Tensor:
        sequences = SequenceBounds.of(events)
        encoded: Encoded = self.sequence(events, sequences)
        counted = None
        if self.remembers_newest:
            _, advertiser = torch.unique(events.advertiser, dim=0, return_inverse=True)
            counted = sequences.newest_of_each(advertiser[events.distinct_item])
        remembered = self.memory(
            encoded.hidden,
            events.distinct_item,
            sequences,
            traits=self.directions(events.advertiser),
            counted=counted,
        )
        return torch.cat([encoded.summary, remembered], dim=1)


class AdvertiserTower(nn.Module):
    """MLP over content centroid, price level, size, statistics, category mix and hashed id -> learned part. The
    direction of the id follows the learned part, and both parts together have unit length.
    """

    def __init__(
        self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings, directions: Directions
    ) -> None:
        super().__init__()
        width = settings.width
        self.shared, self.directions = shared, directions
        levels = PRICE_COLUMNS + 1 + shape.statistics
        self.standardise = Standardise(levels)
        wide = shape.content + levels + 2 * width
        self.perceptron = perceptron(wide, settings)
        self.shortcut = nn.Linear(wide, width)

    def forward(self, advertisers: AdvertiserBatch) -> Tensor:
        """Return the advertiser embeddings [A, W + D]."""
        table = self.shared.category.weight
        mix = functional.embedding_bag(
            advertisers.node,
            table,
            advertisers.node_offset,
            mode="sum",
            per_sample_weights=advertisers.node_share.to(table.dtype),
        )
        levels, hashed = self.standardise(advertisers.levels), self.shared.advertisers(advertisers.hashes)
        joined = torch.cat([advertisers.content, levels, mix, hashed], dim=1)
        learned = functional.normalize(self.shortcut(joined) + self.perceptron(joined), dim=1)
        return torch.cat([learned, self.directions(advertisers.hashes)], dim=1) * 2**-0.5


class UserHead(nn.Module):
    """[state ; demographics] -> user embedding."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.demographics = hash_embedding(DEMOGRAPHIC_BUCKETS, width)
        self.perceptron = perceptron(2 * width, settings)
        self.shortcut = nn.Linear(2 * width, width)
        self.parts = zero_linear(2 * width, 2)

    def forward(self, state: Tensor, demographics: Tensor) -> Tensor:
        """Return the user embeddings [B, W + D].

        The inputs are state [B, W + D] and demographics [B, 3] buckets (age, gender, country; 0 unknown). The embedding
        is [a_0 learned ; a_1 memory]: both parts have unit length before the head sets their lengths a for the user.
        """
        width = self.shortcut.out_features
        summary, memory = state[:, :width], state[:, width:]
        joined = torch.cat([summary, self.demographics(demographics)], dim=1)
        learned = self.shortcut(joined) + self.perceptron(joined)
        return parts_by_lengths(self.parts(joined), [learned, memory])


class AdvertiserNetwork(RetrievalNetwork):
    """User tower (encoder | head without context) and advertiser tower; the towers share the hash embeddings."""

    def __init__(
        self, shape: ModelShape, settings: ModelSettings, features: FeatureSettings, temperature: float
    ) -> None:
        super().__init__()
        self.shape, self.embedding_width = shape, settings.width + settings.trait_dimensions
        shared, directions = SharedEmbeddings(features, settings.width), Directions(settings, features)
        self.encoder = AdvertiserStateEncoder(shape, settings, shared, directions)
        self.head = UserHead(settings)
        self.advertiser_tower = AdvertiserTower(shape, settings, shared, directions)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    @property
    def state_width(self) -> int:
        """Return the width of a state, which is the width of a user or advertiser embedding."""
        return self.embedding_width

"""From events to a summary: the embeddings that both towers share, and the sequence encoders.

Shapes: B sequences, L positions, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.features.content import ContentBasis
from ml.features.event_log import GAP_BUCKETS
from ml.models.blocks import bag, draw_hash_embedding
from settings import FeatureSettings, ModelSettings, UserEncoder

EVENT_NAME_CODES = 32


@dataclass(frozen=True)
class ModelShape:
    """Sizes that come from data rather than from settings."""

    graph: int  # of content: the part of the co-engagement graph
    given: int  # of content: the part of given embeddings
    statistics: int
    positions: int
    text: int = 0  # of content: the part of the titles' words

    @classmethod
    def of(cls, basis: ContentBasis, statistics: int, positions: int) -> ModelShape:
        """Return the shape under a content basis."""
        return cls(basis.graph_width, basis.given_width, statistics, positions, basis.text.width)

    @property
    def content(self) -> int:
        return self.graph + self.given + self.text

    @property
    def content_parts(self) -> dict[str, int]:
        """Return the parts of the content that are not empty, name -> width, in the order of a content vector."""
        every = {"graph_content": self.graph, "given_content": self.given, "text_content": self.text}
        return {name: width for name, width in every.items() if width or name == "graph_content"}


@dataclass(frozen=True)
class EventBatch:
    """Tensors of padded events; the item's own features are gathered in before the tower sees them."""

    content: Tensor  # [B, L, content]
    category: Tensor  # [B, L, CATEGORY_LEVELS]
    price: Tensor  # [B, L, 2]
    advertiser: Tensor  # [B, L, hashes]
    name: Tensor  # [B, L]
    gap: Tensor  # [B, L]
    recency: Tensor  # [B, L]
    valid: Tensor  # [B, L] bool


class SharedEmbeddings(nn.Module):
    """Hash embeddings that both towers and the context layer share.

    So a category, an interest or an advertiser means the same everywhere.
    """

    def __init__(self, features: FeatureSettings, width: int) -> None:
        super().__init__()
        self.category = nn.EmbeddingBag(features.category_buckets, width, mode="sum", padding_idx=0)
        self.advertiser = nn.EmbeddingBag(features.advertiser_buckets, width, mode="sum", padding_idx=0)
        for table in (self.category, self.advertiser):  # after both are made: models of one seed stay what they were
            draw_hash_embedding(table)

    def categories(self, ids: Tensor) -> Tensor:
        """Sum the embeddings of a path's nodes: [..., levels] -> [..., W]."""
        return bag(self.category.weight, ids)

    def advertisers(self, ids: Tensor) -> Tensor:
        """Sum the embeddings of an advertiser's hashes: [..., hashes] -> [..., W]."""
        return bag(self.advertiser.weight, ids)

    def interests(self, ids: Tensor, confidence: Tensor) -> Tensor:
        """Return the confidence-weighted mean of the interests: [B, interests] twice -> [B, W]."""
        share = confidence / confidence.sum(dim=1, keepdim=True).clamp_min(1e-6)
        return functional.embedding_bag(
            ids,
            self.category.weight,
            mode="sum",
            per_sample_weights=share.to(self.category.weight.dtype),
            padding_idx=0,
        )


class EventEmbedding(nn.Module):
    """One vector an event, without the order: item content + category + price + advertiser + event name."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        self.shared = shared
        self.dense = nn.Linear(shape.content + 2, settings.width)
        self.name = nn.Embedding(EVENT_NAME_CODES, settings.width)
        nn.init.normal_(self.name.weight, std=0.02)

    def forward(self, events: EventBatch) -> Tensor:
        """Return the event embeddings [B, L, W]."""
        total = self.dense(torch.cat([events.content, events.price], dim=-1))
        total = total + self.shared.categories(events.category) + self.shared.advertisers(events.advertiser)
        return total + self.name(events.name)


class OrderEmbedding(nn.Module):
    """The place of an event in its sequence: the time since the event before, and the number of events after."""

    def __init__(self, shape: ModelShape, settings: ModelSettings) -> None:
        super().__init__()
        self.gap = nn.Embedding(GAP_BUCKETS, settings.width)
        self.recency = nn.Embedding(shape.positions, settings.width)
        for table in (self.gap, self.recency):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, events: EventBatch) -> Tensor:
        """Return the order embeddings [B, L, W]."""
        return self.gap(events.gap) + self.recency(events.recency)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward.

    The block is our own because the nested-tensor fast path of PyTorch is slower than padding on the CPU. There is no
    attention dropout, which would leave the fused kernel.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the hidden states after the block: [B, L, W], mask [B, 1, 1, L] True where attended -> [B, L, W]."""
        batch, length, width = hidden.shape
        packed = self.query_key_value(self.attention_norm(hidden)).view(
            batch, length, 3, self.heads, width // self.heads
        )
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.dropout(self.project(attended.transpose(1, 2).reshape(batch, length, width)))
        return hidden + self.dropout(self.feed_forward(hidden))


@dataclass(frozen=True)
class Encoded:
    """An encoded sequence."""

    hidden: Tensor  # [B, L, W] one vector an event
    summary: Tensor  # [B, W] zero for a user without events


class TransformerEncoder(nn.Module):
    """Bidirectional transformer; the summary is the hidden state at the newest event plus the mean over events."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        self.embed = EventEmbedding(shape, settings, shared)
        self.order = OrderEmbedding(shape, settings)
        self.embedding_norm = nn.LayerNorm(settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(TransformerBlock(settings) for _ in range(settings.layers))
        self.normalise = nn.LayerNorm(settings.width)

    def forward(self, events: EventBatch) -> Encoded:
        hidden = self.dropout(self.embedding_norm(self.embed(events) + self.order(events)))
        # Rows of one length need no mask; an empty row attends to its own padding and is zeroed by the pooling.
        mask = (
            None if bool(events.valid.all()) else (events.valid | ~events.valid.any(1, keepdim=True))[:, None, None, :]
        )
        for block in self.blocks:
            hidden = block(hidden, mask)
        hidden = self.normalise(hidden)
        last = newest(hidden, events.valid, 1)[:, 0]
        return Encoded(hidden, last + masked_mean(hidden, events.valid))


def masked_mean(hidden: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid positions: [B, L, W], [B, L] -> [B, W]; zero where none is valid."""
    weight = valid.to(hidden.dtype)[:, :, None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def masked_maximum(hidden: Tensor, valid: Tensor) -> Tensor:
    """Return the maximum over valid positions: [B, L, W], [B, L] -> [B, W]; zero where none is valid."""
    largest = hidden.masked_fill(~valid[:, :, None], -torch.inf).amax(1)
    return largest.masked_fill(~valid.any(1, keepdim=True), 0.0)


class PoolingEncoder(nn.Module, ABC):
    """A baseline: an MLP over pooled event embeddings, no transformer, no order. A subclass defines the pooling."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        self.embed = EventEmbedding(shape, settings, shared)
        self.embedding_norm = nn.LayerNorm(settings.width)
        self.perceptron = nn.Sequential(
            nn.Linear(settings.width, 4 * settings.width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(4 * settings.width, settings.width),
        )

    @abstractmethod
    def pool(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Pool [B, L, W] over the positions that ``valid`` [B, L] marks: [B, W], zero where there is none."""

    def forward(self, events: EventBatch) -> Encoded:
        hidden = self.embedding_norm(self.embed(events))
        pooled = self.pool(hidden, events.valid)
        return Encoded(hidden, (pooled + self.perceptron(pooled)) * events.valid.any(1, keepdim=True))


class MeanPooling(PoolingEncoder):
    """The baseline of the post that README.md names: the mean of the event embeddings."""

    def pool(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return the mean over valid positions."""
        return masked_mean(hidden, valid)


class MaximumPooling(PoolingEncoder):
    """The largest value of each dimension over the events: whether the user did something, not how often."""

    def pool(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return the maximum over valid positions."""
        return masked_maximum(hidden, valid)


def newest(hidden: Tensor, valid: Tensor, count: int) -> Tensor:
    """Return the last ``count`` valid positions, newest first: [B, L, W], [B, L] -> [B, count, W].

    The vector is zero where there is no such position. Valid positions stand before padding.
    """
    position = valid.sum(1, keepdim=True) - 1 - torch.arange(count, device=valid.device)
    found = hidden.gather(1, position.clamp_min(0)[:, :, None].expand(-1, -1, hidden.shape[2]))
    return found * (position >= 0)[:, :, None]


ENCODERS: dict[UserEncoder, Callable[[ModelShape, ModelSettings, SharedEmbeddings], nn.Module]] = {
    UserEncoder.transformer: TransformerEncoder,
    UserEncoder.mean_pooling: MeanPooling,
    UserEncoder.max_pooling: MaximumPooling,
}

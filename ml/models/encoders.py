"""From events to a summary: the embeddings that both towers share, and the sequence encoders.

Shapes: B sequences, E events of all of them, U distinct items, W width.
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
from ml.models.blocks import Dropout, bag, draw_hash_embedding
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
    popularity: int = 0  # of an embedding: the part of an item's popularity; models from before had none
    remembers_newest: bool = False  # of advertisers: the memory has one event of each; models from before had all

    @classmethod
    def of(
        cls,
        basis: ContentBasis,
        statistics: int,
        positions: int,
        *,
        popularity: int = 0,
        remembers_newest: bool = False,
    ) -> ModelShape:
        """Return the shape under a content basis."""
        return cls(
            graph=basis.graph_width,
            given=basis.given_width,
            statistics=statistics,
            positions=positions,
            text=basis.text.width,
            popularity=popularity,
            remembers_newest=remembers_newest,
        )

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
    """Sequences one behind the other, without padding; the features of each distinct item stand in the batch once.

    Two events have the same distinct item if they agree in item, content and advertiser. The sequences of one length
    should stand together: attention takes neighbours of one length in one step.
    """

    content: Tensor  # [U, content]
    category: Tensor  # [U, CATEGORY_LEVELS]
    price: Tensor  # [U, 2]
    advertiser: Tensor  # [U, hashes]
    distinct_item: Tensor  # [E] the row of each event in the tensors above
    name: Tensor  # [E]
    gap: Tensor  # [E]
    recency: Tensor  # [E]
    lengths: Tensor  # [B] events of each sequence, in the order of the sequences


@dataclass(frozen=True)
class SequenceBounds:
    """Where the sequences of a batch begin and end, on the device of the batch."""

    lengths: Tensor  # [B]
    begins: Tensor  # [B]
    of_event: Tensor  # [E] the sequence of each event
    runs: list[tuple[int, int]]  # (sequences, length) of neighbours of one length, in order

    @classmethod
    def of(cls, events: EventBatch) -> SequenceBounds:
        """Return the sequences of a batch."""
        lengths, counts = torch.unique_consecutive(events.lengths, return_counts=True)
        runs = list(zip(counts.tolist(), lengths.tolist(), strict=True))
        begins = events.lengths.cumsum(0) - events.lengths
        of_event = torch.arange(len(begins), device=begins.device).repeat_interleave(events.lengths)
        return cls(events.lengths, begins, of_event, runs)

    def sum(self, values: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Sum the rows of ``values`` [N, D] that the events name, weighted: [E], [E] -> [B, D]; zero without events."""
        return functional.embedding_bag(rows, values, self.begins, mode="sum", per_sample_weights=weights)

    def mean(self, hidden: Tensor) -> Tensor:
        """Return the mean over each sequence's events: [E, W] -> [B, W]; zero without events."""
        return functional.embedding_bag(self._events(hidden), hidden, self.begins, mode="mean")

    def maximum(self, hidden: Tensor) -> Tensor:
        """Return the maximum over each sequence's events: [E, W] -> [B, W]; zero without events."""
        return functional.embedding_bag(self._events(hidden), hidden, self.begins, mode="max")

    def newest(self, hidden: Tensor, count: int) -> Tensor:
        """Return each sequence's last ``count`` events, newest first: [E, W] -> [B, count, W]; zero where none is."""
        place = self.lengths[:, None] - 1 - torch.arange(count, device=hidden.device)
        there = place >= 0
        if not len(hidden):
            return hidden.new_zeros(*there.shape, hidden.shape[1])
        return hidden[torch.where(there, self.begins[:, None] + place, 0)] * there[:, :, None]

    def newest_of_each(self, group: Tensor) -> Tensor:
        """Return whether no later event of the same sequence is of the same group: [E] -> [E] bool."""
        _, key = torch.unique(torch.stack([self.of_event, group]), dim=1, return_inverse=True)
        place = self._events(group)
        last = torch.zeros_like(key).scatter_reduce(0, key, place, "amax", include_self=False)
        return last[key] == place

    @staticmethod
    def _events(hidden: Tensor) -> Tensor:
        return torch.arange(len(hidden), device=hidden.device)


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
        """Return the event embeddings [E, W]."""
        items = self.dense(torch.cat([events.content, events.price], dim=-1))
        items = items + self.shared.categories(events.category) + self.shared.advertisers(events.advertiser)
        return functional.embedding(events.distinct_item, items) + self.name(events.name)


class OrderEmbedding(nn.Module):
    """The place of an event in its sequence: the time since the event before, and the number of events after."""

    def __init__(self, shape: ModelShape, settings: ModelSettings) -> None:
        super().__init__()
        self.gap = nn.Embedding(GAP_BUCKETS, settings.width)
        self.recency = nn.Embedding(shape.positions, settings.width)
        for table in (self.gap, self.recency):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, events: EventBatch) -> Tensor:
        """Return the order embeddings [E, W]."""
        return self.gap(events.gap) + self.recency(events.recency)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward.

    The block is our own because the nested-tensor fast path of PyTorch is slow on the CPU. There is no attention
    dropout, which would leave the fused kernel.
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
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor, runs: list[tuple[int, int]]) -> Tensor:
        """Return the hidden states after the block: [E, W] -> [E, W]; ``runs`` are those of ``SequenceBounds``."""
        packed = self.query_key_value(self.attention_norm(hidden))
        parts = torch.split(packed, [sequences * length for sequences, length in runs])
        attended = torch.cat([self._attend(part, *run) for part, run in zip(parts, runs, strict=True)])
        hidden = hidden + self.dropout(self.project(attended))
        return hidden + self.dropout(self.feed_forward(hidden))

    def _attend(self, packed: Tensor, sequences: int, length: int) -> Tensor:
        """Attend within each of the sequences of one length: [sequences * length, 3 W] -> [sequences * length, W]."""
        if not length:
            return packed[:, : packed.shape[1] // 3]
        query, key, value = packed.view(sequences, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(sequences * length, -1)


@dataclass(frozen=True)
class Encoded:
    """Encoded sequences."""

    hidden: Tensor  # [E, W] one vector an event
    summary: Tensor  # [B, W] zero for a user without events


class TransformerEncoder(nn.Module):
    """Bidirectional transformer; the summary is the hidden state at the newest event plus the mean over events."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        self.embed = EventEmbedding(shape, settings, shared)
        self.order = OrderEmbedding(shape, settings)
        self.embedding_norm = nn.LayerNorm(settings.width)
        self.dropout = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(TransformerBlock(settings) for _ in range(settings.layers))
        self.normalise = nn.LayerNorm(settings.width)

    def forward(self, events: EventBatch, sequences: SequenceBounds) -> Encoded:
        hidden = self.dropout(self.embedding_norm(self.embed(events) + self.order(events)))
        for block in self.blocks:
            hidden = block(hidden, sequences.runs)
        hidden = self.normalise(hidden)
        return Encoded(hidden, sequences.newest(hidden, 1)[:, 0] + sequences.mean(hidden))


class PoolingEncoder(nn.Module, ABC):
    """A baseline: an MLP over pooled event embeddings, no transformer, no order. A subclass defines the pooling."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        self.embed = EventEmbedding(shape, settings, shared)
        self.embedding_norm = nn.LayerNorm(settings.width)
        self.perceptron = nn.Sequential(
            nn.Linear(settings.width, 4 * settings.width),
            nn.GELU(),
            Dropout(settings.dropout),
            nn.Linear(4 * settings.width, settings.width),
        )

    @abstractmethod
    def pool(self, hidden: Tensor, sequences: SequenceBounds) -> Tensor:
        """Pool the events of each sequence: [E, W] -> [B, W], zero where there is none."""

    def forward(self, events: EventBatch, sequences: SequenceBounds) -> Encoded:
        hidden = self.embedding_norm(self.embed(events))
        pooled = self.pool(hidden, sequences)
        return Encoded(hidden, (pooled + self.perceptron(pooled)) * (sequences.lengths > 0)[:, None])


class MeanPooling(PoolingEncoder):
    """The baseline of the post that README.md names: the mean of the event embeddings."""

    def pool(self, hidden: Tensor, sequences: SequenceBounds) -> Tensor:
        """Return the mean over the events."""
        return sequences.mean(hidden)


class MaximumPooling(PoolingEncoder):
    """The largest value of each dimension over the events: whether the user did something, not how often."""

    def pool(self, hidden: Tensor, sequences: SequenceBounds) -> Tensor:
        """Return the maximum over the events."""
        return sequences.maximum(hidden)


class HistoryMemory(nn.Module):
    """The mean of the traits of the items in the history, each event weighted by a score of its encoding."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.score = nn.Linear(settings.width, 1)
        nn.init.zeros_(self.score.weight)

    def forward(
        self,
        hidden: Tensor,
        item: Tensor,
        sequences: SequenceBounds,
        *,
        traits: Tensor,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Return the memory [B, T]; zero for a sequence without events.

        Args:
            hidden: [E, W]. item: [E] rows of ``traits``, of the distinct items [U, T].
            counted: [E] whether an event counts, at least one in each sequence; None: all do.
        """
        score = self.score(hidden).squeeze(-1).to(traits.dtype)
        if counted is not None:
            score = score.masked_fill(~counted, float("-inf"))
        empty = score.new_full(sequences.lengths.shape, float("-inf"))
        largest = empty.scatter_reduce(0, sequences.of_event, score.detach(), "amax")
        weight = (score - largest[sequences.of_event]).exp()
        total = torch.zeros_like(empty).index_add(0, sequences.of_event, weight)
        return sequences.sum(traits, item, weight) / total.clamp_min(1e-6)[:, None]


ENCODERS: dict[UserEncoder, Callable[[ModelShape, ModelSettings, SharedEmbeddings], nn.Module]] = {
    UserEncoder.transformer: TransformerEncoder,
    UserEncoder.mean_pooling: MeanPooling,
    UserEncoder.max_pooling: MaximumPooling,
}

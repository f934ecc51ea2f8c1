"""The contextual sequential two-tower model.

    events -> event embedding -> bidirectional transformer -> state          (offline, daily, stored)
    [state ; context ; demographics] -> head -> user embedding               (at request time)
    item features -> item tower -> item embedding                            (daily, indexed)

Both towers end in two parts. One is learned and generalises. The other is memory: the content of what the user
engaged with and looks at, and the item's content as it is, so that their product is an item-item neighbourhood score,
the strong baseline of sparse data, inside one inner product. The head says how much each part counts for a query.

Shapes: B queries, L positions, N items, W width, C content.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.encoders import ENCODERS, Encoded, EventBatch, ModelShape, SharedEmbeddings, newest
from settings import FeatureSettings, Fusion, ModelSettings

DEMOGRAPHIC_BUCKETS = 256


@dataclass(frozen=True)
class ItemBatch:
    """Tensors of items."""

    content: Tensor  # [N, content]
    category: Tensor  # [N, CATEGORY_LEVELS]
    interests: Tensor  # [N, interests]
    confidence: Tensor  # [N, interests]
    advertiser: Tensor  # [N, hashes]
    price: Tensor  # [N, 2]
    statistics: Tensor  # [N, statistics]


@dataclass(frozen=True)
class ContextBatch:
    """Tensors of live or synthetic context."""

    content: Tensor  # [B, content], zero without a subject
    interests: Tensor  # [B, interests]
    confidence: Tensor  # [B, interests]
    present: Tensor  # [B] bool


class HistoryMemory(nn.Module):
    """The content of the user's items as it is: its mean over events, weighted by what the encoder makes of each."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.score = nn.Linear(settings.width, 1)
        nn.init.zeros_(self.score.weight)

    def forward(self, hidden: Tensor, events: EventBatch) -> Tensor:
        """hidden [B, L, W] -> [B, C]; zero where no event has content."""
        told = events.valid & events.content.any(dim=-1)
        score = self.score(hidden).squeeze(-1).masked_fill(~told, float("-inf"))
        weight = torch.where(told.any(1, keepdim=True), score, 0.0).softmax(dim=1) * told
        return torch.einsum("bl,blc->bc", weight, events.content)


@dataclass(frozen=True)
class StateLayout:
    """What a stored state consists of: the summary, the memory, and with cross-attention the newest encoded events."""

    width: int
    content: int
    events: int  # 0 with ``concat``

    @classmethod
    def of(cls, shape: ModelShape, settings: ModelSettings) -> StateLayout:
        kept = settings.fusion_events if settings.fusion is Fusion.cross_attention else 0
        return cls(settings.width, shape.content, kept)

    @property
    def size(self) -> int:
        """Numbers a state."""
        return self.width + self.content + self.events * self.width

    def split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, size] -> summary [B, W], memory [B, C], events [B, events, W]."""
        sizes = [self.width, self.content, self.events * self.width]
        summary, memory, events = torch.split(state, sizes, dim=1)
        return summary, memory, events.reshape(len(state), self.events, self.width)


class StateEncoder(nn.Module):
    """The offline half of the user tower: events -> state [B, size]."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        self.layout = StateLayout.of(shape, settings)
        self.sequence = ENCODERS[settings.encoder](shape, settings, shared)
        self.memory = HistoryMemory(settings)

    def forward(self, events: EventBatch) -> Tensor:
        encoded: Encoded = self.sequence(events)
        kept = newest(encoded.hidden, events.valid, self.layout.events).flatten(1)
        return torch.cat([encoded.summary, self.memory(encoded.hidden, events), kept], dim=1)


class ContextAttention(nn.Module):
    """Cross-attention of the context over the stored events: what the user looks at asks the history.

    The summary is one of the keys, and values are taken as they are: without events the result is the summary, and the
    fusion is ``concat``.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.query = nn.Linear(settings.width, settings.width)
        self.key = nn.Linear(settings.width, settings.width)
        self.scale = settings.width**-0.5

    def forward(self, summary: Tensor, events: Tensor, context: Tensor) -> Tensor:
        """summary [B, W], events [B, events, W], context [B, W] -> [B, W]. A zero row is no event."""
        slots = torch.cat([summary[:, None], events], dim=1)
        present = slots.any(dim=-1)
        present[:, 0] = True
        score = torch.einsum("bw,bsw->bs", self.query(context), self.key(slots)) * self.scale
        return torch.einsum("bs,bsw->bw", score.masked_fill(~present, float("-inf")).softmax(dim=1), slots)


class ContextLayer(nn.Module):
    """Interests weighted by confidence and the subject's content -> [B, W]; a learned vector where there is none."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        width = settings.width
        self.shared = shared
        self.content = nn.Linear(shape.content, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, context: ContextBatch) -> Tensor:
        mixed = self.content(context.content) + self.shared.interests(context.interests, context.confidence)
        return torch.where(context.present[:, None], mixed + self.perceptron(mixed), self.absent)


class Head(nn.Module):
    """[state ; context ; demographics] -> user embedding. This is all that runs at request time.

    The embedding is [sqrt(1 - g) learned ; sqrt(g) memory], both parts of unit length, g a gate that the query sets.
    The memory is that of the history, moved towards the content of what the user looks at by a second gate.
    """

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        width = settings.width
        self.layout = StateLayout.of(shape, settings)
        self.context = ContextLayer(shape, settings, shared)
        self.attention = ContextAttention(settings) if self.layout.events else None
        self.demographics = nn.EmbeddingBag(DEMOGRAPHIC_BUCKETS, width, mode="sum", padding_idx=0)
        nn.init.normal_(self.demographics.weight, std=0.02)
        with torch.no_grad():
            self.demographics.weight[0] = 0
        self.perceptron = nn.Sequential(
            nn.Linear(3 * width, 4 * width), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(4 * width, width)
        )
        self.shortcut = nn.Linear(3 * width, width)
        self.gates = nn.Linear(3 * width, 2)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, state: Tensor, context: ContextBatch, demographics: Tensor) -> Tensor:
        """state [B, size], demographics [B, 3] buckets (age, gender, country; 0 unknown) -> [B, W + C], unit length."""
        summary, memory, events = self.layout.split(state)
        shown = self.context(context)
        if self.attention is not None:
            summary = self.attention(summary, events, shown)
        joined = torch.cat([summary, shown, self.demographics(demographics)], dim=1)
        learned = functional.normalize(self.shortcut(joined) + self.perceptron(joined), dim=1)
        of_memory, of_context = self.gates(joined).sigmoid().unbind(dim=1)
        towards = (of_context * (context.present & context.content.any(dim=1)))[:, None]
        memory = (1 - towards) * functional.normalize(memory, dim=1) + towards * context.content
        parts = [
            (1 - of_memory).sqrt()[:, None] * learned,
            of_memory.sqrt()[:, None] * functional.normalize(memory, dim=1),
        ]
        return functional.normalize(torch.cat(parts, dim=1), dim=1)


class ItemTower(nn.Module):
    """MLP over content, category, interests, price, advertiser and as-of statistics, and the content as it is.

    The embedding is [learned ; content] / sqrt(2): of unit length, or sqrt(.5) for an item without content, whose
    memory part is zero for everybody.
    """

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        width = settings.width
        self.shared = shared
        wide = shape.content + 2 + shape.statistics + 3 * width
        self.perceptron = nn.Sequential(
            nn.Linear(wide, 4 * width), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(4 * width, width)
        )
        self.shortcut = nn.Linear(wide, width)

    def forward(self, items: ItemBatch) -> Tensor:
        """-> [N, W + C]."""
        joined = torch.cat(
            [
                items.content,
                items.price,
                items.statistics,
                self.shared.categories(items.category),
                self.shared.interests(items.interests, items.confidence),
                self.shared.advertisers(items.advertiser),
            ],
            dim=1,
        )
        learned = functional.normalize(self.shortcut(joined) + self.perceptron(joined), dim=1)
        return torch.cat([learned, items.content], dim=1) * 0.5**0.5


class TwoTower(nn.Module):
    """User tower (encoder | head) and item tower."""

    def __init__(
        self, shape: ModelShape, settings: ModelSettings, features: FeatureSettings, temperature: float
    ) -> None:
        super().__init__()
        self.shape = shape
        shared = SharedEmbeddings(features, settings.width)
        self.encoder = StateEncoder(shape, settings, shared)
        self.head = Head(shape, settings, shared)
        self.item_tower = ItemTower(shape, settings, shared)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    @property
    def state_width(self) -> int:
        """Numbers a stored state."""
        return self.encoder.layout.size

    @property
    def embedding_width(self) -> int:
        """Numbers a user or item embedding."""
        return self.encoder.layout.width + self.encoder.layout.content

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp().clamp(0.01, 1.0)

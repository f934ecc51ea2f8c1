"""The contextual sequential two-tower model.

    events -> event embedding -> bidirectional transformer -> state          (offline, daily, stored)
    [state ; context ; demographics] -> head -> user embedding               (at request time)
    item features -> item tower -> item embedding                            (daily, indexed)

The embeddings of both towers consist of parts. One part is learned and generalises. The other parts are memory: on the
user's side the traits of the items in the history and of the subject, on the item's side the item's own traits. The
product of two memory parts is a neighbourhood score, the strong baseline on sparse data, inside the one inner product.
The head sets the weight of each part for a query. The last part is a user's constant 1 times an item's popularity
offset, which is not learnt: ``with_popularity_offsets`` sets it, and training leaves it at zero.

Shapes: B queries, N items, W width, T traits, P width of the popularity part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from settings import FeatureSettings, Fusion, ModelSettings

POPULARITY_WIDTH = 4  # the offset, then zeros: a product quantiser splits an embedding into codes of four numbers


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
    category: Tensor  # [B, CATEGORY_LEVELS], zero without a subject
    advertiser: Tensor  # [B, hashes], zero without a subject
    interests: Tensor  # [B, interests]
    confidence: Tensor  # [B, interests]
    present: Tensor  # [B] bool

    def take(self, rows: slice) -> ContextBatch:
        """Return the context of some of the rows."""
        return ContextBatch(
            content=self.content[rows],
            category=self.category[rows],
            advertiser=self.advertiser[rows],
            interests=self.interests[rows],
            confidence=self.confidence[rows],
            present=self.present[rows],
        )


def trait_widths(shape: ModelShape, settings: ModelSettings) -> list[int]:
    """Return the widths of the traits: the parts of the content that there are, category path, advertiser."""
    return [*shape.content_parts.values(), settings.trait_dimensions, settings.trait_dimensions]


class Traits(nn.Module):
    """Traits of an item, vectors that are not learned: its content, its category path and its advertiser.

    A category node and an advertiser are fixed random directions, nearly orthogonal to all others, and a path is the
    sum of its nodes. So the inner product of two paths tells how many nodes they share, and the inner product of two
    advertisers whether they are the same. Each trait has unit length, or is zero where it is unknown.
    """

    category: Tensor
    advertiser: Tensor

    def __init__(self, shape: ModelShape, settings: ModelSettings, features: FeatureSettings) -> None:
        super().__init__()
        self.widths = trait_widths(shape, settings)
        self.content_widths = self.widths[:-2]
        random = torch.Generator().manual_seed(0)
        for name, buckets in (("category", features.category_buckets), ("advertiser", features.advertiser_buckets)):
            self.register_buffer(name, random_directions(buckets, settings.trait_dimensions, random))

    def forward(self, content: Tensor, category: Tensor, advertiser: Tensor) -> Tensor:
        """Join the traits: content [..., C], category [..., CATEGORY_LEVELS], advertiser [..., hashes] -> [..., T]."""
        parts = [
            *torch.split(content, self.content_widths, dim=-1),
            bag(self.category, category),
            bag(self.advertiser, advertiser),
        ]
        return torch.cat([functional.normalize(part, dim=-1) for part in parts], dim=-1)


@dataclass(frozen=True)
class StateLayout:
    """The parts of a stored state: the summary, the memory, and with cross-attention the newest encoded events."""

    width: int
    memory: int
    events: int  # 0 with ``concat``

    @classmethod
    def of(cls, shape: ModelShape, settings: ModelSettings) -> StateLayout:
        kept = settings.fusion_events if settings.fusion is Fusion.cross_attention else 0
        return cls(settings.width, sum(trait_widths(shape, settings)), kept)

    @property
    def size(self) -> int:
        """Return the width of a state."""
        return self.width + self.memory + self.events * self.width

    def split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split the states: [B, size] -> summary [B, W], memory [B, T], events [B, events, W]."""
        sizes = [self.width, self.memory, self.events * self.width]
        summary, memory, events = torch.split(state, sizes, dim=1)
        return summary, memory, events.reshape(state.shape[0], self.events, self.width)


class StateEncoder(nn.Module):
    """The offline half of the user tower: events -> state [B, size]."""

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings, traits: Traits) -> None:
        super().__init__()
        self.layout = StateLayout.of(shape, settings)
        self.sequence = ENCODERS[settings.encoder](shape, settings, shared)
        self.traits, self.memory = traits, HistoryMemory(settings)

    def forward(self, events: EventBatch) -> Tensor:
        sequences = SequenceBounds.of(events)
        encoded: Encoded = self.sequence(events, sequences)
        traits = self.traits(events.content, events.category, events.advertiser)
        memory = self.memory(encoded.hidden, events.distinct_item, sequences, traits=traits)
        kept = sequences.newest(encoded.hidden, self.layout.events).flatten(1)
        return torch.cat([encoded.summary, memory, kept], dim=1)


class ContextAttention(nn.Module):
    """Cross-attention of the context over the stored events: the context asks, the history gives keys and values.

    The summary is one of the keys, and the values are not projected. So without events the result is the summary, and
    the fusion is the same as ``concat``.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.query = nn.Linear(settings.width, settings.width)
        self.key = nn.Linear(settings.width, settings.width)
        self.scale = settings.width**-0.5

    def forward(self, summary: Tensor, events: Tensor, context: Tensor) -> Tensor:
        """Attend: summary [B, W], events [B, events, W], context [B, W] -> summary [B, W]. A zero row is no event."""
        slots = torch.cat([summary[:, None], events], dim=1)
        present = slots.any(dim=-1)
        present[:, 0] = True
        score = torch.einsum("bw,bsw->bs", self.query(context), self.key(slots)) * self.scale
        return torch.einsum("bs,bsw->bw", score.masked_fill(~present, float("-inf")).softmax(dim=1), slots)


class ContextLayer(nn.Module):
    """Interests weighted by confidence, and the subject's content, category and advertiser -> [B, W].

    A query without context gets a learned vector.
    """

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings) -> None:
        super().__init__()
        width = settings.width
        self.shared = shared
        self.content = nn.Linear(shape.content, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, context: ContextBatch) -> Tensor:
        mixed = self.content(context.content) + self.shared.interests(context.interests, context.confidence)
        mixed = mixed + self.shared.categories(context.category) + self.shared.advertisers(context.advertiser)
        return torch.where(context.present[:, None], mixed + self.perceptron(mixed), self.absent)


class Head(nn.Module):
    """[state ; context ; demographics] -> user embedding. Only the head runs at request time.

    The embedding is [a_0 learned ; a_1 trait_1 ; ...]. All parts have unit length before the query sets their lengths
    a, each independently of the others. If the lengths were shares that sum to one, the head could turn a part down
    only by turning another part up, and training would then turn up a learned part that says nothing. A trait of the
    user is the trait of the history, moved towards the trait of the subject by a gate of its own.
    """

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings, traits: Traits) -> None:
        super().__init__()
        width = settings.width
        self.layout, self.popularity = StateLayout.of(shape, settings), shape.popularity
        self.traits = traits
        self.context = ContextLayer(shape, settings, shared)
        self.attention = ContextAttention(settings) if self.layout.events else None
        self.demographics = hash_embedding(DEMOGRAPHIC_BUCKETS, width)
        self.perceptron = perceptron(3 * width, settings)
        self.shortcut = nn.Linear(3 * width, width)
        self.parts = zero_linear(3 * width, 1 + len(traits.widths))
        self.towards = zero_linear(3 * width, len(traits.widths))

    def forward(self, state: Tensor, context: ContextBatch, demographics: Tensor) -> Tensor:
        """Return the user embeddings [B, W + T + P].

        The inputs are state [B, size], the context and demographics [B, 3] buckets (age, gender, country; 0 unknown).
        The length of an embedding tells how sure the query is of its order: a sure query heeds popularity less.
        """
        summary, memory, events = self.layout.split(state)
        shown = self.context(context)
        if self.attention is not None:
            summary = self.attention(summary, events, shown)
        joined = torch.cat([summary, shown, self.demographics(demographics)], dim=1)
        parts = [self.shortcut(joined) + self.perceptron(joined)]
        subject = self.traits(context.content, context.category, context.advertiser) * context.present[:, None]
        gates = torch.split(self.towards(joined).sigmoid(), 1, dim=1)
        widths = self.traits.widths
        for gate, of_history, of_subject in zip(
            gates, torch.split(memory, widths, 1), torch.split(subject, widths, 1), strict=True
        ):
            gate = gate * of_subject.any(dim=1, keepdim=True)
            parts.append((1 - gate) * functional.normalize(of_history, dim=1) + gate * of_subject)
        return with_popularity(parts_by_lengths(self.parts(joined), parts), self.popularity, offset=1.0)


def with_popularity(embeddings: Tensor, width: int, *, offset: float) -> Tensor:
    """Add the popularity part to embeddings without one: [N, W + T] -> [N, W + T + P]; P may be 0."""
    if not width:
        return embeddings
    return functional.pad(functional.pad(embeddings, (0, 1), value=offset), (0, width - 1))


class ItemTower(nn.Module):
    """MLP over content, category, interests, price, advertiser and as-of statistics, and the traits as they are.

    The embedding is [learned ; traits] over the root of the number of parts. The embedding has unit length, or is
    shorter for an item with an unknown trait: such an item scores zero in that part for every user.
    """

    def __init__(self, shape: ModelShape, settings: ModelSettings, shared: SharedEmbeddings, traits: Traits) -> None:
        super().__init__()
        width = settings.width
        self.shared, self.traits, self.popularity = shared, traits, shape.popularity
        self.standardise = Standardise(shape.statistics)
        wide = shape.content + 2 + shape.statistics + 3 * width
        self.perceptron = perceptron(wide, settings)
        self.shortcut = nn.Linear(wide, width)

    def forward(self, items: ItemBatch) -> Tensor:
        """Return the item embeddings [N, W + T + P], without an offset of popularity."""
        joined = torch.cat(
            [
                items.content,
                items.price,
                self.standardise(items.statistics),
                self.shared.categories(items.category),
                self.shared.interests(items.interests, items.confidence),
                self.shared.advertisers(items.advertiser),
            ],
            dim=1,
        )
        learned = functional.normalize(self.shortcut(joined) + self.perceptron(joined), dim=1)
        traits = self.traits(items.content, items.category, items.advertiser)
        embedding = torch.cat([learned, traits], dim=1) * (1 + len(self.traits.widths)) ** -0.5
        return with_popularity(embedding, self.popularity, offset=0.0)


class TwoTower(RetrievalNetwork):
    """User tower (encoder | head) and item tower."""

    def __init__(
        self, shape: ModelShape, settings: ModelSettings, features: FeatureSettings, temperature: float
    ) -> None:
        super().__init__()
        self.shape = shape
        shared = SharedEmbeddings(features, settings.width)
        traits = Traits(shape, settings, features)
        self.encoder = StateEncoder(shape, settings, shared, traits)
        self.head = Head(shape, settings, shared, traits)
        self.item_tower = ItemTower(shape, settings, shared, traits)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    @property
    def state_width(self) -> int:
        """Return the width of a stored state."""
        return self.encoder.layout.size

    @property
    def parts(self) -> dict[str, int]:
        """Return the parts of a user or item embedding, name -> width, in their order."""
        names = [*self.shape.content_parts, "category", "advertiser"]
        traits = dict(zip(names, self.encoder.traits.widths, strict=True))
        popularity = {"popularity": self.shape.popularity} if self.shape.popularity else {}
        return {"learned": self.encoder.layout.width, **traits, **popularity}

    @property
    def embedding_width(self) -> int:
        """Return the width of a user or item embedding."""
        return sum(self.parts.values())

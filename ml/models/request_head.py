"""The head for one request, in numpy.

A request is one row. The network's head is fifty small operations on this row, and torch takes longer to begin each of
them than to do it. Here the layers that read the same vector are one matrix, and an operation on the parts of an
embedding is one operation on all of them. The result is that of the network's head to 1e-5.

Shapes: W width, T traits, D parts: the learned part and each trait that has a width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit
from torch import Tensor, nn

from ml.examples.context import Context
from ml.features.items import CATEGORY_LEVELS, MAXIMUM_INTERESTS, ItemFeatures
from ml.models.blocks import LOG_LENGTH_BOUND
from ml.models.item_model import ContextLayer, Head, StateLayout

Floats = NDArray[np.float32]
Buckets = NDArray[np.int64]
SHORTEST = np.float32(1e-12)  # a shorter part is divided by this length, as torch's ``normalize`` does
LEAST_CONFIDENCE = np.float32(1e-6)


@dataclass(frozen=True)
class RequestContext:
    """The context of one request, as ``ContextBatch`` has it for many.

    Attributes:
        content: [content] and category: [CATEGORY_LEVELS], zero without a subject and without a topic.
        advertiser: [hashes], zero without a subject.
        interests, confidence: [interests], zero where there is none.
        present: whether there is a context at all.
    """

    content: Floats
    category: Buckets
    advertiser: Buckets
    interests: Buckets
    confidence: Floats
    present: bool

    @classmethod
    def beside(cls, subject: int, items: ItemFeatures) -> RequestContext:
        """Return the context of looking at an item (catalogue row): ``subject_context`` of one."""
        return cls(
            items.content[subject],
            items.category[subject],
            items.advertiser[subject],
            items.interests[subject],
            items.confidence[subject],
            present=True,
        )

    @classmethod
    def absent(cls, items: ItemFeatures) -> RequestContext:
        """Return the context of the home feed, where the user looks at no item."""
        return cls(
            np.zeros(items.content.shape[1], np.float32),
            np.zeros(CATEGORY_LEVELS, np.int64),
            np.zeros(items.advertiser.shape[1], np.int64),
            np.zeros(MAXIMUM_INTERESTS, np.int64),
            np.zeros(MAXIMUM_INTERESTS, np.float32),
            present=False,
        )

    @classmethod
    def of(cls, context: Context, items: ItemFeatures) -> RequestContext:
        """Return the context of the first query, with its subject's features; a query without a subject shows its
        topic."""
        subject, topics = int(context.subject[0]), context.topics
        shown = cls.absent(items) if subject < 0 else cls.beside(subject, items)
        of_topic = topics is not None and subject < 0
        return cls(
            topics.content[0] if of_topic and topics is not None else shown.content,
            topics.category[0] if of_topic and topics is not None else shown.category,
            shown.advertiser,
            context.interests[0],
            context.confidence[0],
            bool(context.present[0]),
        )


@dataclass(frozen=True)
class _Linear:
    """A linear layer: weight [outputs, inputs], bias [outputs]."""

    weight: Floats
    bias: Floats

    @classmethod
    def of(cls, *layers: nn.Linear) -> _Linear:
        """Return the layers, which read the same vector, one below the other."""
        weights, biases = ([_array(getattr(each, name)) for each in layers] for name in ("weight", "bias"))
        return cls(np.concatenate(weights), np.concatenate(biases))

    def rows(self, chosen: NDArray[np.int64]) -> _Linear:
        """Return the layer with the ``chosen`` outputs only."""
        return _Linear(self.weight[chosen], self.bias[chosen])

    def __call__(self, vector: Floats) -> Floats:
        found: Floats = self.weight @ vector + self.bias
        return found


@dataclass(frozen=True)
class _Context:
    """``ContextLayer``."""

    content: _Linear
    first: _Linear
    second: _Linear
    absent: Floats
    categories: Floats  # [buckets, W]
    advertisers: Floats  # [buckets, W]

    @classmethod
    def of(cls, layer: ContextLayer) -> _Context:
        first, _, second = layer.perceptron
        return cls(
            _Linear.of(layer.content),
            _Linear.of(_linear(first)),
            _Linear.of(_linear(second)),
            _array(layer.absent),
            _table(layer.shared.category.weight),
            _table(layer.shared.advertiser.weight),
        )

    def __call__(self, context: RequestContext) -> Floats:
        """Return the context as a vector [W]."""
        if not context.present:
            return self.absent
        share = context.confidence / max(context.confidence.sum(), LEAST_CONFIDENCE)
        mixed = self.content(context.content) + share @ self.categories[context.interests]
        mixed += self.categories[context.category].sum(axis=0)
        mixed += self.advertisers[context.advertiser].sum(axis=0)
        found: Floats = mixed + self.second(_gelu(self.first(mixed)))
        return found


@dataclass(frozen=True)
class RequestHead:
    """A frozen head.

    Attributes:
        joined: the layers that read [summary ; context ; demographics]: the shortcut, the first layer of the
            perceptron, the logarithms of the parts' lengths and the gates.
        attention: query and key of ``ContextAttention``; None with the fusion ``concat``.
        starts: [D - 1] where each trait begins in the memory. part: [T] the trait of each number.
        directions: [category buckets, trait], [advertiser buckets, trait].
    """

    layout: StateLayout
    context: _Context
    attention: tuple[_Linear, _Linear] | None
    demographics: Floats  # [buckets, W]
    joined: _Linear
    learned: _Linear  # second layer of the perceptron
    starts: NDArray[np.int64]
    part: NDArray[np.int64]
    directions: tuple[Floats, Floats]
    scale: np.float32  # of every part
    popularity: Floats  # [P] the popularity part

    @classmethod
    def of(cls, head: Head) -> RequestHead:
        """Return the head as it is now: later training does not change the copy."""
        first, _, _, second = head.perceptron
        widths = np.array(head.traits.widths)
        kept = np.flatnonzero(widths)  # content of a catalogue may be empty
        parts, towards = _Linear.of(head.parts), _Linear.of(head.towards)
        lengths, gates = parts.rows(np.append(0, 1 + kept)), towards.rows(kept)
        layers = [_Linear.of(head.shortcut), _Linear.of(_linear(first)), lengths, gates]
        return cls(
            head.layout,
            _Context.of(head.context),
            None if head.attention is None else (_Linear.of(head.attention.query), _Linear.of(head.attention.key)),
            _table(head.demographics.weight),
            _Linear(np.concatenate([each.weight for each in layers]), np.concatenate([each.bias for each in layers])),
            _Linear.of(_linear(second)),
            np.cumsum(widths[kept]) - widths[kept],
            np.repeat(np.arange(len(kept)), widths[kept]),
            (_table(head.traits.category), _table(head.traits.advertiser)),
            np.float32((1 + len(widths)) ** -0.5),
            np.eye(1, head.popularity, dtype=np.float32)[0],
        )

    def __call__(self, state: Floats, context: RequestContext, demographics: Buckets) -> Floats:
        """Return the user embedding [W + T + P].

        Args:
            state: [size]; zero for an unknown user. demographics: [3] buckets (age, gender, country; 0 unknown).
        """
        width, traits = self.layout.width, len(self.starts)
        summary, memory = state[:width], state[width : width + self.layout.memory]
        shown = self.context(context)
        if self.attention is not None:
            summary = self._attended(summary, state[width + self.layout.memory :], shown)
        read = self.joined(np.concatenate([summary, shown, self.demographics[demographics].sum(axis=0)]))
        learned = read[:width] + self.learned(_gelu(read[width : -1 - 2 * traits]))
        log_lengths = np.clip(read[-1 - 2 * traits : -traits], -LOG_LENGTH_BOUND, LOG_LENGTH_BOUND)
        lengths = np.exp(log_lengths) * self.scale
        found = self._unit(memory)
        if context.present:
            subject = self._subject(context)
            gates = np.logical_or.reduceat(subject, self.starts) * expit(read[-traits:])
            found = self._unit(found + gates[self.part] * (subject - found))
        return np.concatenate(
            [learned * (lengths[0] / _length(learned)), found * lengths[1:][self.part], self.popularity]
        )

    def _attended(self, summary: Floats, events: Floats, context: Floats) -> Floats:
        """Return the summary [W] that ``ContextAttention`` makes of a summary, events [events * W] and a context."""
        assert self.attention is not None
        query, key = self.attention
        slots = np.concatenate([summary, events]).reshape(-1, len(summary))
        present = np.asarray(slots.any(axis=1))
        present[0] = True
        slots = slots[present]
        score = (slots @ key.weight.T + key.bias) @ query(context) * np.float32(len(summary) ** -0.5)
        weight = np.exp(score - score.max())
        found: Floats = (weight / weight.sum()) @ slots
        return found

    def _subject(self, context: RequestContext) -> Floats:
        """Return the traits [T] of the subject or the topic."""
        categories, advertisers = self.directions
        category, advertiser = categories[context.category].sum(axis=0), advertisers[context.advertiser].sum(axis=0)
        return self._unit(np.concatenate([context.content, category, advertiser]))

    def _unit(self, traits: Floats) -> Floats:
        """Return traits [T], each scaled to unit length; a zero trait stays zero."""
        squares: Floats = np.add.reduceat(traits * traits, self.starts)
        lengths: Floats = np.maximum(np.sqrt(squares), SHORTEST)
        return traits / lengths[self.part]


def _gelu(values: Floats) -> Floats:
    share = np.asarray(erf(values * np.float32(0.5**0.5)), np.float32)
    return values * (np.float32(0.5) + np.float32(0.5) * share)


def _length(vector: Floats) -> np.float32:
    return max(np.sqrt(vector @ vector), SHORTEST)


def _linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _array(tensor: Tensor) -> Floats:
    found: Floats = tensor.detach().cpu().numpy().copy()
    return found


def _table(weight: Tensor) -> Floats:
    """Return embeddings of buckets, of which the first one means nothing."""
    found = _array(weight)
    found[0] = 0
    return found

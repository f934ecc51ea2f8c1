"""Synthetic context augmentation: the item that the user might be looking at with the ad, derived from the label.

Training has no onsite context, so the context is derived from the positive. The post that README.md names projects the
positive's own interests. On real data this recipe makes real context harmful, because the subject of a real request is
only loosely tied to the conversion. The default recipe is therefore as noisy as the log: another item that this user
engaged with within a day of the positive. The positive itself is never its own subject.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.examples.pairs import Examples
from ml.features.co_engagement import co_engagement
from ml.features.event_log import EventLog
from ml.features.items import DAY, ItemFeatures
from settings import ContextRecipe

NO_SUBJECT = -1
MATE_EVENTS = 10
SAME_DAY_EVENTS = 20  # a longer day pairs an event with so many after it


@dataclass(frozen=True)
class Topics:
    """What requests without a subject are about: shown in the place of a subject's content and category.

    A row of zeros is a request that has a subject, or that names nothing which the catalogue has, in no known word.
    """

    content: NDArray[np.float32]  # [queries, content]
    category: NDArray[np.int64]  # [queries, CATEGORY_LEVELS] buckets

    def take(self, rows: NDArray[np.int64]) -> Topics:
        return Topics(self.content[rows], self.category[rows])

    def without(self, dropped: NDArray[np.bool_]) -> Topics:
        kept = ~dropped[:, None]
        return Topics(np.where(kept, self.content, 0).astype(np.float32), np.where(kept, self.category, 0))


@dataclass(frozen=True)
class Context:
    """The input of the context layer, one row a query. A row without interests, subject and topic is "no context"."""

    subject: NDArray[np.int64]  # [queries] catalogue row whose content is shown, NO_SUBJECT = none
    interests: NDArray[np.int64]  # [queries, MAXIMUM_INTERESTS] buckets, 0 = none
    confidence: NDArray[np.float32]  # [queries, MAXIMUM_INTERESTS]
    topics: Topics | None = None  # None: no query has any

    def __len__(self) -> int:
        return len(self.subject)

    @property
    def present(self) -> NDArray[np.bool_]:
        named: NDArray[np.bool_] = (self.subject >= 0) | (self.confidence > 0).any(axis=1)
        return named if self.topics is None else named | self.topics.content.any(axis=1)

    def take(self, rows: NDArray[np.int64]) -> Context:
        topics = self.topics and self.topics.take(rows)
        return Context(self.subject[rows], self.interests[rows], self.confidence[rows], topics)

    def without(self, dropped: NDArray[np.bool_]) -> Context:
        """Remove the context of the queries that are ``dropped`` [queries].

        >>> seen = Context(np.array([5, 6]), np.array([[1], [2]]), np.array([[1.0], [0.5]], np.float32))
        >>> seen.without(np.array([False, True])).present.tolist()
        [True, False]
        """
        return Context(
            np.where(dropped, NO_SUBJECT, self.subject),
            np.where(dropped[:, None], 0, self.interests),
            np.where(dropped[:, None], 0, self.confidence).astype(np.float32),
            self.topics and self.topics.without(dropped),
        )

    def perturbed(self, random: np.random.Generator, interest_dropout: float, jitter: float) -> Context:
        """Return the context as a noisier classifier might have seen it.

        Some interests are missing. Each confidence is multiplied by a random factor of log deviation ``jitter``, up to
        a confidence of 1. The subject stays.
        """
        if not interest_dropout and not jitter:
            return self
        kept = random.random(self.interests.shape) >= interest_dropout
        noise = np.exp(jitter * random.standard_normal(self.confidence.shape))
        confidence = np.minimum(self.confidence * noise, 1.0).astype(np.float32)
        interests, confidence = np.where(kept, self.interests, 0), np.where(kept, confidence, np.float32(0))
        return Context(self.subject, interests, confidence, self.topics)


def subject_context(subject: NDArray[np.int64], items: ItemFeatures) -> Context:
    """Return the context of looking at an item (related_pins): the item's content and interests.

    Rows with ``NO_SUBJECT`` get no context.
    """
    known = subject >= 0
    row = np.maximum(subject, 0)
    return Context(
        subject,
        np.where(known[:, None], items.interests[row], 0),
        np.where(known[:, None], items.confidence[row], 0).astype(np.float32),
    )


def interests_context(source: NDArray[np.int64], items: ItemFeatures) -> Context:
    """Return only the interests of an item, not its content, as the plain recipe and a search query give them."""
    full = subject_context(source, items)
    return Context(np.full(len(source), NO_SUBJECT), full.interests, full.confidence)


def no_context(queries: int, interests: int) -> Context:
    """Return the context of the home feed, where the user looks at no item."""
    return Context(
        np.full(queries, NO_SUBJECT),
        np.zeros((queries, interests), np.int64),
        np.zeros((queries, interests), np.float32),
    )


def synthetic_subjects(
    examples: Examples,
    log: EventLog,
    features: ItemFeatures,
    *,
    recipe: ContextRecipe,
    fold_of_user: NDArray[np.int64],
    seed: int,
) -> NDArray[np.int64]:
    """Return the catalogue row that each example's synthetic context is taken from; ``NO_SUBJECT`` where there is none.

    ``own_interests``: the positive (of which only the interests will be shown).

    ``co_engaged``: an item other than the positive, drawn in proportion to the number of times that one user of the
    example's fold engaged with both items within a day, over the training period. The example is learnt under a graph
    that holds the pairs of the other folds: a subject drawn from those pairs would always lie nearer to the positive
    than the items that people really look at.

    ``basket_mate``: another item that this user engaged with within a day of the positive, drawn evenly; where there is
    none, as ``co_engaged``.

    ``category_neighbour``: another item with the same deepest known category, drawn evenly.
    """
    if recipe is ContextRecipe.none:
        return np.full(len(examples), NO_SUBJECT)
    if recipe is ContextRecipe.own_interests:
        return examples.item.copy()
    random, items = np.random.default_rng(seed), len(features)
    if recipe is ContextRecipe.category_neighbour:
        return category_neighbours(examples.item, features, random)
    neighbours = _co_engaged(examples, log, items, fold_of_user=fold_of_user, random=random)
    if recipe is ContextRecipe.co_engaged:
        return neighbours
    mates = basket_mates(examples, log, items, random)
    return np.where(mates >= 0, mates, neighbours)


def _co_engaged(
    examples: Examples, log: EventLog, items: int, *, fold_of_user: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    neighbours, fold_of_event = np.full(len(examples), NO_SUBJECT), fold_of_user[log.user_of_event()]
    for fold in np.unique(fold_of_user):
        own = replace(log, item=np.where(fold_of_event == fold, log.item, -1))
        at = np.flatnonzero(fold_of_user[examples.user] == fold)
        neighbours[at] = _draw_neighbours(examples.item[at], same_day_pairs(own, items), random)
    return neighbours


def same_day_pairs(log: EventLog, items: int) -> sp.csr_array:
    """Count, symmetrically [items, items], the pairs of different items that one user engaged with within a day."""
    return co_engagement(log, items, SAME_DAY_EVENTS, DAY)


def basket_mates(examples: Examples, log: EventLog, items: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw, for each example, another item that the user engaged with less than a day before or after the positive.

    The event is at most ``MATE_EVENTS`` events away from the positive; ``NO_SUBJECT`` where there is no such event.
    """
    position = _first_after(examples, log, items)
    mates, best = np.full(len(examples), NO_SUBJECT), np.zeros(len(examples))
    for distance in [*range(-MATE_EVENTS, 0), *range(1, MATE_EVENTS + 1)]:
        other = position + distance
        own = (other >= log.offsets[examples.user]) & (other < log.offsets[examples.user + 1])
        other = np.where(own, other, position)
        near = np.abs(log.seconds[other] - log.seconds[position]) < DAY
        # The largest of even random numbers: each mate is as likely as any other.
        number = np.where(
            near & (log.item[other] >= 0) & (log.item[other] != examples.item), random.random(len(mates)), 0
        )
        mates = np.where(number > best, log.item[other], mates)
        best = np.maximum(number, best)
    return mates


def category_neighbours(
    rows: NDArray[np.int64], features: ItemFeatures, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw, for each of ``rows``, another item with the same deepest category; ``NO_SUBJECT`` where there is none."""
    levels = (features.category > 0).sum(axis=1)
    leaf = np.where(levels > 0, features.category[np.arange(len(features)), np.maximum(levels, 1) - 1], -1)
    order = np.argsort(leaf, kind="stable")
    begin, end = np.searchsorted(leaf[order], leaf[rows]), np.searchsorted(leaf[order], leaf[rows], side="right")
    place = np.argsort(order)[rows]
    # One of the others: numbers from the item's own place on are moved up by one.
    drawn = begin + (random.random(len(rows)) * (end - begin - 1)).astype(np.int64)
    drawn += drawn >= place
    alone = (end - begin < 2) | (leaf[rows] < 0)
    return np.where(alone, NO_SUBJECT, order[np.where(alone, 0, drawn)])


def _first_after(examples: Examples, log: EventLog, items: int) -> NDArray[np.int64]:
    """Return the flat position of each example's positive: the user's first event with the item behind the history.

    position    0 1 2 3 4        one user
    item        7 8 7 9 7
    order       0 2 4 1 3        positions by item: 7 at 0, 2, 4; 8 at 1; 9 at 3
    wanted      item 7 at or behind position 1 (``history_end``): position 2
    """
    pair = np.where(log.item >= 0, log.user_of_event() * items + log.item, -1)
    order = np.argsort(pair, kind="stable")
    keys = pair[order] * log.events + order  # ascending by pair, then by position
    wanted = (examples.user * items + examples.item) * log.events + examples.history_end
    return order[np.searchsorted(keys, wanted)]


def _draw_neighbours(rows: NDArray[np.int64], counts: sp.csr_array, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw one column for each of ``rows``, in proportion to the counts of that row; -1 for an empty row.

    columns of a row      5     8   9
    counts                2     1   1
    cumulative        6      8   9   10     6 is the sum of the rows before
    drawn             6 <= x < 8: 5;  x < 9: 8;  x < 10: 9
    """
    cumulative = np.concatenate(([0.0], np.cumsum(counts.data, dtype=np.float64)))
    low, high = cumulative[counts.indptr[rows]], cumulative[counts.indptr[rows + 1]]
    drawn = low + random.random(len(rows)) * (high - low)
    position = np.searchsorted(cumulative, drawn, side="right") - 1
    position = np.clip(position, counts.indptr[rows], np.maximum(counts.indptr[rows + 1] - 1, counts.indptr[rows]))
    if not len(counts.indices):
        return np.full(len(rows), NO_SUBJECT)
    return np.where(high > low, counts.indices[np.minimum(position, len(counts.indices) - 1)], NO_SUBJECT)

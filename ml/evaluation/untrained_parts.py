"""A baseline of the parts that the item model begins with, without training: similarities and recent popularity.

A query's vector has the mean traits of the user's newest items, moved towards the traits of the subject, or of the
interests that a search query names. An item's
vector has the item's own traits and the logarithm of its recent events. A few weights decide between the parts: they
are drawn at random, and the draw with the best recall on a slice of the training period answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray

from ml.evaluation.contextual_requests import HiddenItems, context_evaluation
from ml.evaluation.intervals import confidence_interval
from ml.evaluation.metrics import usable_ks
from ml.evaluation.queries import EvaluationSet, newest_window
from ml.examples.pairs import ranges
from ml.examples.period import TrainingPeriod
from ml.features.dataset import Dataset, build_dataset
from ml.features.event_log import newest, to_seconds
from ml.models.encoders import ModelShape
from ml.models.item_model import Traits
from ml.models.tensors import CatalogueTensors
from ml.retrieval.lists import RankedLists, search
from settings import Settings

DRAWS = 24
ROUND = 4  # of the queries and of the draws one in so many goes into the first and the second round
KS = (10, 100)
TEXT_SHARE = 0.5  # of the draws
NEWEST_EVENTS = (3, 10, 30, 100)
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class PartWeights:
    """The weights of one way of asking.

    Attributes:
        graph, given, category, advertiser, text: of the cosines of the traits; ``given`` counts where the catalogue
            gives embeddings, ``text`` where the catalogue has titles.
        recent: of the logarithm of 1 + recent events.
        towards_subject: share of the subject in a query's traits, where the subject is known; 0 to 1.
        newest_events: so many of the user's newest events make the user's traits.
    """

    graph: float
    given: float
    category: float
    advertiser: float
    recent: float
    towards_subject: float
    newest_events: int
    text: float

    @classmethod
    def draw(cls, random: np.random.Generator) -> PartWeights:
        """Draw weights: those of the parts evenly in the logarithm, the share of the subject evenly.

        Every other draw, about, leaves the text out: the words of titles do not help everywhere.
        """
        [of_text] = random.spawn(1)  # so that a catalogue without titles has the draws that it always had
        graph, given, category, advertiser = np.exp(random.uniform(np.log(0.05), np.log(2), 4)).tolist()
        return cls(
            graph=graph,
            given=given,
            category=category,
            advertiser=advertiser,
            recent=float(np.exp(random.uniform(np.log(0.01), np.log(0.5)))),
            towards_subject=float(random.uniform()),
            newest_events=int(random.choice(NEWEST_EVENTS)),
            text=float(np.exp(of_text.uniform(np.log(0.05), np.log(2)))) if of_text.random() < TEXT_SHARE else 0.0,
        )

    def of_traits(self, shape: ModelShape) -> list[float]:
        """Return the weights of the traits, of which a catalogue may lack given embeddings and titles."""
        of_content = {"graph_content": self.graph, "given_content": self.given, "text_content": self.text}
        return [*(of_content[part] for part in shape.content_parts), self.category, self.advertiser]


@dataclass(frozen=True)
class UntrainedParts:
    """The chosen weights for queries without a context, with a subject, and with interests alone, as of a search."""

    without_subject: PartWeights
    with_subject: PartWeights
    with_interests: PartWeights

    def lists(self, asked: EvaluationSet, settings: Settings, depth: int) -> RankedLists:
        """Return the lists of the queries, in rows of the candidates; ``settings``: widths of the traits."""
        shared, lists = _Parts.of(asked, settings), RankedLists.from_rows([[]] * len(asked.queries), depth)
        beside, named = _kinds(asked)
        for weights, rows in (
            (self.without_subject, ~beside & ~named),
            (self.with_subject, beside),
            (self.with_interests, named),
        ):
            if rows.any():
                found = replace(shared, asked=asked.take(np.flatnonzero(rows))).lists(weights, depth)
                lists.items[rows], lists.scores[rows] = found.items, found.scores
        return lists


def choose_weights(
    period: TrainingPeriod,
    impressions: pl.DataFrame | None,
    settings: Settings,
    hidden_items: HiddenItems | None = None,
) -> UntrainedParts:
    """Return the best of some random weights on the last window of the training period.

    The baseline learns from the period before that window. The queries are next conversions, and requests with a
    subject item or a search query where the window has any (``context_evaluation``); where the window has none of
    either kind, the weights are those without a context, and where it has no conversions either, the first draw stays.

    Args:
        impressions: of the landing zone's table, for the requests with a context; those after the period's end
            are not read. None where there is no such table.
        hidden_items: as for ``context_evaluation``.
    """
    earlier = period.until(period.end - period.window)
    dataset = build_dataset(
        earlier.events,
        earlier.items,
        earlier.users,
        settings=settings.features,
        event_names=earlier.event_names,
        seed=settings.training.seed,
    )
    home_feed = newest_window(period, dataset, settings)
    maximum, seed = settings.training.validation_users, settings.training.seed
    if impressions is not None:
        impressions = impressions.filter(pl.Series(to_seconds(impressions["request_time"])) < period.end)
    in_context = context_evaluation(
        home_feed,
        period,
        impressions,
        features=settings.features,
        maximum=maximum,
        seed=seed,
        hidden_items=hidden_items,
    )
    random = np.random.default_rng(seed)
    draws = [PartWeights.draw(random) for _ in range(DRAWS)]
    without = _best(draws, home_feed, settings)
    if in_context is None:
        return UntrainedParts(without, without, without)
    kinds = [in_context.asked.take(np.flatnonzero(rows)) for rows in _kinds(in_context.asked)]
    beside, named = (_best(draws, each, settings) if len(each.queries) else without for each in kinds)
    return UntrainedParts(without, beside, named)


def _kinds(asked: EvaluationSet) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which queries have a subject, and which have interests alone [queries]."""
    beside = asked.queries.context.subject >= 0
    return beside, asked.queries.context.present & ~beside


def weighed_lists(weights: PartWeights, asked: EvaluationSet, settings: Settings, depth: int) -> RankedLists:
    """Return the lists of the queries under given weights, in rows of the candidates."""
    return _Parts.of(asked, settings).lists(weights, depth)


@dataclass(frozen=True)
class _Parts:
    """What all weights share: the parts of some queries and of their candidates.

    Attributes:
        items: [items, T] the traits, each of unit length or zero. recent: [items] log of 1 + recent events.
    """

    asked: EvaluationSet
    traits: Traits
    items: Vectors
    recent: Vectors

    @classmethod
    def of(cls, asked: EvaluationSet, settings: Settings) -> _Parts:
        traits = _traits(asked.dataset, settings)
        return cls(
            asked, traits, _traits_of_items(traits, asked.dataset), np.log1p(asked.events_of_items(asked.recent_days))
        )

    def lists(self, weights: PartWeights, depth: int) -> RankedLists:
        """Return the lists under given weights, in rows of the candidates."""
        queries = self.asked.queries
        subject = _traits_of_context(self.traits, self.asked)
        vectors = []
        for weight, of_history, of_subject in zip(
            weights.of_traits(_shape(self.asked.dataset)),
            _parts(self.traits, _mean_of_newest(self.asked, self.items, weights.newest_events)),
            _parts(self.traits, subject),
            strict=True,
        ):
            share = weights.towards_subject * of_subject.any(axis=1, keepdims=True)
            vectors.append(np.float32(weight) * ((1 - share) * _unit(of_history) + share * of_subject))
        return search(
            np.concatenate([*vectors, np.full((len(queries), 1), weights.recent)], axis=1),
            np.concatenate([self.items, self.recent[:, None]], axis=1)[queries.candidates],
            depth,
            exclude=queries.exclude,
        )


def _best(draws: list[PartWeights], asked: EvaluationSet, settings: Settings) -> PartWeights:
    """Return the draw with the highest product of recalls, so that neither list length is forgotten.

    All draws answer a quarter of the queries, and the best quarter of the draws answer all of them.
    """
    if not len(asked.queries.positives.items):
        return draws[0]
    some = asked.take(np.arange(0, len(asked.queries), ROUND))
    if len(some.queries.positives.items):
        draws = _best_first(draws, some, settings)[: max(1, len(draws) // ROUND)]
    return _best_first(draws, asked, settings)[0]


def _best_first(draws: list[PartWeights], asked: EvaluationSet, settings: Settings) -> list[PartWeights]:
    """Return the draws by the product of their recalls of the queries, the highest first."""
    ks, positives = usable_ks(KS, len(asked.queries.candidates)), asked.queries.positives
    parts = _Parts.of(asked, settings)

    def recall(weights: PartWeights) -> float:
        lists = parts.lists(weights, max(ks))
        return float(np.prod([confidence_interval(lists, positives, k, samples=0).estimate for k in ks]))

    return sorted(draws, key=recall, reverse=True)


def _shape(dataset: Dataset) -> ModelShape:
    return ModelShape.of(dataset.basis, dataset.statistics.width, positions=1)


def _traits(dataset: Dataset, settings: Settings) -> Traits:
    return Traits(_shape(dataset), settings.model, settings.features)


@torch.inference_mode()
def _traits_of_items(traits: Traits, dataset: Dataset) -> Vectors:
    """Return the traits of every item [items, T], each of unit length or zero."""
    features = dataset.features
    columns = (features.content, features.category, features.advertiser)
    found: Vectors = traits(*(torch.from_numpy(column) for column in columns)).numpy()
    return found


@torch.inference_mode()
def _traits_of_context(traits: Traits, asked: EvaluationSet) -> Vectors:
    """Return the traits of each query's subject, or of the interests that it names [queries, T]; zero without."""
    shown = CatalogueTensors(asked.dataset.features).context(asked.queries.context)
    found: Vectors = traits(shown.content, shown.category, shown.advertiser).numpy()
    return found


def _mean_of_newest(asked: EvaluationSet, items: Vectors, count: int) -> Vectors:
    """Return the mean traits of each user's newest events [queries, T]; zero for a user without any."""
    queries, log = asked.queries, asked.dataset.log.offsite
    known = np.flatnonzero(queries.user >= 0)
    slices = newest(log, queries.user[known], queries.history_end[known], count)
    flat, owner = ranges(slices.start, slices.end)
    item = log.item[flat]
    entries = (np.ones(int((item >= 0).sum()), np.float32), (known[owner][item >= 0], item[item >= 0]))
    total = sparse.csr_array(entries, shape=(len(queries), len(items))) @ items
    return np.asarray(total, np.float32)


def _parts(traits: Traits, vectors: Vectors) -> list[Vectors]:
    return np.split(vectors, np.cumsum(traits.widths)[:-1], axis=1)


def _unit(vectors: Vectors) -> Vectors:
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return (vectors / length).astype(np.float32)

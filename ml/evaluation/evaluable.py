"""Everything that a fixed set of queries can be put to: the models of the reports, and two of them asked another way.

The other ways belong to queries with a context item. ``contextual_without_context`` is the contextual model whose
context is hidden; ``sequential_appended`` is the model without context whose encoder is run again with the context item
as the newest event, which is all that a sequential library could do online.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.model_lists import BASELINES, ModelName, baseline_lists, settings_of, trained_lists, without_context
from ml.evaluation.queries import Asked, positions
from ml.examples.context import no_context
from ml.examples.pairs import ranges
from ml.features.event_log import EventLog
from ml.features.items import MAXIMUM_INTERESTS
from ml.models.item_model import TwoTower
from ml.retrieval.lists import Ragged, RankedLists
from settings import Settings


class Evaluable(StrEnum):
    """In the order of the reports."""

    popularity = "popularity"
    recent_popularity = "recent_popularity"
    item_knn = "item_knn"
    mean_pooling = "mean_pooling"
    max_pooling = "max_pooling"
    sequential = "sequential"
    sequential_appended = "sequential_appended"
    contextual_without_context = "contextual_without_context"
    contextual = "contextual"

    @property
    def model(self) -> ModelName:
        """The model that answers; two evaluables of one model share one training."""
        return OTHER_WAYS.get(self) or ModelName(self.value)

    @property
    def is_trained(self) -> bool:
        return self.model not in BASELINES

    @property
    def needs_context(self) -> bool:
        """Without context items it is another name of its model."""
        return self in OTHER_WAYS


OTHER_WAYS = {
    Evaluable.sequential_appended: ModelName.sequential,
    Evaluable.contextual_without_context: ModelName.contextual,
}


def counted_lists(evaluable: Evaluable, asked: Asked, depth: int) -> RankedLists:
    """Lists of a baseline that needs no training, in rows of the candidates."""
    return baseline_lists(evaluable.model, asked, depth)


def network_lists(
    evaluable: Evaluable, network: TwoTower, asked: Asked, *, settings: Settings, depth: int
) -> RankedLists:
    """Lists of a network that was trained under ``settings_of(evaluable.model, settings)``."""
    if evaluable is Evaluable.sequential_appended:
        asked = subject_appended(asked, asked.dataset.event_names[0])
    if evaluable is Evaluable.contextual_without_context:
        asked = without_context(asked)
    return trained_lists(network, asked, settings_of(evaluable.model, settings), depth)


def subject_appended(asked: Asked, event_name: str) -> Asked:
    """The same queries with the context item as the newest event of the history, and no context.

    Each query gets a sequence of its own. The appended event has the name ``event_name`` and happens at the instant of
    the queries, or at the history's last event where that is later.

        log         ann: 7 8 9          (items at the positions 0, 1, 2)
        queries     ann, who looks at 5, as of behind position 1;  an unknown user, who looks at 6
        offsets     0     3   4
        source      0 1 3 |4            positions in the log; from 3 on the appended events
        extended    7 8 5 |6

    Raises:
        ValueError: the model does not know ``event_name``.
    """
    dataset, queries, log = asked.dataset, asked.queries, asked.dataset.log
    known, user = queries.user >= 0, np.maximum(queries.user, 0)
    start = np.where(known, log.offsets[user], 0)
    end = np.where(known, queries.history_end, 0)
    shown = np.flatnonzero(queries.context.subject >= 0)
    subject = queries.context.subject[shown]
    lengths = end - start
    lengths[shown] += 1
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    # Positions in the log followed by the appended events: history first, then the subject.
    source = np.full(offsets[-1], -1)
    source[offsets[shown + 1] - 1] = log.events + np.arange(len(shown))
    source[source < 0] = ranges(start, end)[0]
    last = np.concatenate((log.seconds, [-np.inf]))[np.where(end > start, end - 1, -1)]
    extended = EventLog(
        user_ids=pl.Series(np.arange(len(queries))).cast(pl.String),
        offsets=offsets,
        item=np.concatenate((log.item, subject))[source],
        name=np.concatenate((log.name, np.full(len(shown), dataset.event_names.index(event_name) + 1)))[source],
        advertiser=np.concatenate((log.advertiser, dataset.features.advertiser[subject]))[source],
        seconds=np.concatenate((log.seconds, np.maximum(queries.as_of, last[shown])))[source],
    )
    demographics = dataset.users_demographics(queries.user)
    return replace(
        asked,
        dataset=replace(dataset, log=extended, demographics=demographics),
        queries=replace(
            queries,
            user=np.arange(len(queries)),
            history_end=offsets[1:],
            context=no_context(len(queries), MAXIMUM_INTERESTS),
        ),
    )


def within(lists: RankedLists, positives: Ragged, kept: NDArray[np.bool_], depth: int) -> tuple[RankedLists, Ragged]:
    """Lists and positives on a part of the catalogue, in its rows.

    Items outside ``kept`` [items] leave the lists and the rest moves up, before the lists are cut at ``depth``;
    positives outside it are not asked for.

    Without item 1, item 2 becomes row 1:

    >>> lists = RankedLists.from_rows([[1, 2, 0]], depth=3)
    >>> kept = np.array([True, False, True])
    >>> moved, wanted = within(lists, Ragged.from_pairs([0, 0], [1, 2], queries=1), kept, depth=2)
    >>> moved.items.tolist(), wanted.items.tolist()
    ([[1, 0]], [1])
    """
    position = positions(np.flatnonzero(kept), len(kept))
    inside = (lists.items >= 0) & kept[np.maximum(lists.items, 0)]
    order = np.argsort(~inside, axis=1, kind="stable")[:, :depth]
    moved = np.take_along_axis(np.where(inside, position[np.maximum(lists.items, 0)], -1), order, axis=1)
    scores = np.where(moved >= 0, np.take_along_axis(lists.scores, order, axis=1), -np.inf).astype(np.float32)
    wanted = Ragged(positives.offsets, np.where(positives.items >= 0, position[np.maximum(positives.items, 0)], -1))
    return RankedLists(moved, scores), wanted.where(wanted.items >= 0)

"""Evaluation queries: users at an instant, with their context, their candidates and their conversions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.baselines import popularity_scores
from ml.examples.context import Context, no_context, subject_context
from ml.examples.pairs import LabelRule, examples_at, ranges
from ml.examples.period import Prepared, TrainingPeriod, prepare, whole_log
from ml.features.dataset import Dataset
from ml.features.event_log import EventLog
from ml.features.items import MAXIMUM_INTERESTS
from ml.retrieval.lists import Positives, Ragged
from settings import Settings


@dataclass(frozen=True)
class Queries:
    """Queries with known positives. Items are rows of ``candidates``, which are rows of the catalogue."""

    user: NDArray[np.int64]  # [queries] row of the event log, -1 = no history
    history_end: NDArray[np.int64]  # [queries] flat position behind the last known event
    context: Context  # [queries]
    positives: Positives  # -1 = an item outside the candidates: a miss
    exclude: Ragged | None  # items that may not be retrieved
    candidates: NDArray[np.int64]  # catalogue rows that are ranked, ascending
    as_of: float  # instant of the item statistics, seconds
    positive_name: NDArray[np.int64] | None = None  # [positives] code of the event name, where it is known

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray[np.int64]) -> Queries:
        """Return the queries of ``rows``; the event names of the positives are not kept."""
        return Queries(
            self.user[rows],
            self.history_end[rows],
            self.context.take(rows),
            self.positives.take(rows),
            self.exclude.take(rows) if self.exclude else None,
            self.candidates,
            self.as_of,
        )


def positions(candidates: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    """Return, for each catalogue row, the row's position among the candidates; -1 elsewhere [items + 1].

    The last entry is -1, so that the row -1 (outside the catalogue) has no position either.

    >>> positions(np.array([0, 2]), items=3)[np.array([2, 1, -1])].tolist()
    [1, -1, -1]
    """
    position = np.full(items + 1, -1, np.int64)
    position[candidates] = np.arange(len(candidates))
    return position


def future_queries(
    dataset: Dataset, whole: EventLog, cutoff: float, *, rule: LabelRule, maximum: int, seed: int, only_candidates: bool
) -> tuple[Queries, Dataset]:
    """Return a home-feed query for each user known before ``cutoff`` with positives in the window after ``cutoff``.

    Args:
        dataset: the data known at the cut-off. whole: a log that reaches beyond the window, in the same catalogue rows.
        maximum: at most this many users, a seeded sample.
        only_candidates: drop a positive on an item that nobody could know at the cut-off, instead of counting a miss.

    Returns:
        The queries, whose users are rows of ``whole``, and the dataset with that log.
    """
    found = examples_at(whole, cutoff, rule, dataset.event_names)
    candidates = np.flatnonzero(dataset.statistics.listed(cutoff))
    position = positions(candidates, len(dataset.features))
    if only_candidates:
        found = found.take(np.flatnonzero(position[found.item] >= 0))
    users = np.unique(found.user)
    if len(users) > maximum:
        users = np.sort(np.random.default_rng(seed).choice(users, maximum, replace=False))
        found = found.take(np.flatnonzero(np.isin(found.user, users)))
    history_end = whole.known_until(cutoff)[users]
    queries = Queries(
        user=users,
        history_end=history_end,
        context=no_context(len(users), MAXIMUM_INTERESTS),
        positives=Ragged.from_pairs(np.searchsorted(users, found.user), position[found.item], len(users)),
        exclude=None if rule.repeats_count else seen_items(whole, users, history_end, position),
        candidates=candidates,
        as_of=cutoff,
        positive_name=found.name,
    )
    return queries, with_log(dataset, whole)


def with_log(dataset: Dataset, whole: EventLog) -> Dataset:
    """Return the dataset with another log, of the same users and more; the demographics follow the users."""
    row = dataset.log.user_rows(whole.user_ids)
    return replace(dataset, log=whole, demographics=dataset.users_demographics(row))


def seen_items(
    log: EventLog, users: NDArray[np.int64], history_end: NDArray[np.int64], position: NDArray[np.int64]
) -> Ragged:
    """Return each query's own items, which may not be retrieved, as rows of the candidates."""
    flat, owner = ranges(log.offsets[users], history_end)
    item = log.offsite.item[flat]
    row = np.where(item >= 0, position[np.maximum(item, 0)], -1)
    return Ragged.from_pairs(owner[row >= 0], row[row >= 0], len(users))


def contextual_queries(
    dataset: Dataset,
    whole: EventLog,
    user: NDArray[np.int64],
    *,
    seconds: NDArray[np.float64],
    subject: NDArray[np.int64],
    target: tuple[NDArray[np.int64], NDArray[np.int64]],
    cutoff: float,
) -> tuple[Queries, Dataset]:
    """Return a query for each request with a subject item after ``cutoff``.

    The history ends at the midnight before the request, the context is the subject item, and the positives are the
    targets.

    Args:
        user: rows of ``whole``, -1 = unknown. seconds: the start of each request's day; earlier events are known.
        subject: catalogue rows. target: pairs (request, catalogue row) of the positives.
    """
    candidates = np.flatnonzero(dataset.statistics.listed(cutoff))
    position = positions(candidates, len(dataset.features))
    request, item = target
    history_end = np.zeros(len(user), np.int64)
    for start in np.unique(seconds):
        at = (seconds == start) & (user >= 0)
        history_end[at] = whole.known_until(float(start))[user[at]]
    shown = np.flatnonzero((subject >= 0) & (position[np.maximum(subject, 0)] >= 0))
    queries = Queries(
        user=user,
        history_end=history_end,
        context=subject_context(subject, dataset.features),
        positives=Ragged.from_pairs(request, position[item], len(user)),
        exclude=Ragged.from_pairs(shown, position[subject[shown]], len(user)),
        candidates=candidates,
        as_of=cutoff,
    )
    return queries, with_log(dataset, whole)


def hiding(queries: Queries, hidden: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Queries:
    """Return the queries, whose lists may not hold the ``hidden`` pairs (query, row of the candidates) either."""
    own = queries.exclude or Ragged.from_pairs([], [], len(queries))
    query, item = (np.concatenate(each) for each in zip((own.query_rows, own.items), hidden, strict=True))
    return replace(queries, exclude=Ragged.from_pairs(query, item, len(queries)))


@dataclass(frozen=True)
class EvaluationSet:
    """Queries, with the log that holds their histories; the log may be newer than the models' data."""

    dataset: Dataset  # features, basis and statistics of the training period; a log that reaches the queries
    queries: Queries
    learnt: EventLog  # what the counted baselines learn from: events of the training period
    recent_days: float  # window of the recent popularity

    def take(self, rows: NDArray[np.int64]) -> EvaluationSet:
        """Return the queries of ``rows``, as ``Queries.take`` does."""
        return replace(self, queries=self.queries.take(rows))

    @property
    def categories(self) -> NDArray[np.int64]:
        """Return a code of each candidate's category path, -1 = unknown [candidates]."""
        _, category = self.dataset.statistics.groups
        return category[self.queries.candidates]

    def events_of_items(self, window_days: float | None) -> NDArray[np.float32]:
        """Return the number of events of each item before the queries' instant [items]; None: of all time."""
        statistics = self.dataset.statistics
        return popularity_scores(
            statistics.item,
            statistics.seconds,
            self.queries.as_of,
            window_days=window_days,
            items=len(self.dataset.features),
        )


def validation_slice(period: TrainingPeriod, settings: Settings) -> tuple[TrainingPeriod, Prepared, EvaluationSet]:
    """Prepare the period less its last window, and ask for the conversions of that window to validate on."""
    earlier = period.until(period.end - period.window)
    prepared = prepare(earlier, settings)
    return earlier, prepared, newest_window(period, prepared.dataset, settings)


def newest_window(period: TrainingPeriod, known: Dataset, settings: Settings) -> EvaluationSet:
    """Return the queries of a validation: users with conversions in the period's last window.

    The models learn from ``known``, the data before that window.
    """
    queries, dataset = future_queries(
        known,
        whole_log(period, settings),
        period.end - period.window,
        rule=period.rule,
        maximum=settings.training.validation_users,
        seed=settings.training.seed,
        only_candidates=True,
    )
    return EvaluationSet(dataset, queries, known.log, period.rule.window_days)


def without_context(asked: EvaluationSet) -> EvaluationSet:
    """Return the same queries on the home feed."""
    absent = no_context(len(asked.queries), MAXIMUM_INTERESTS)
    return replace(asked, queries=replace(asked.queries, context=absent))


def on_the_home_feed(asked: EvaluationSet, users: NDArray[np.int64]) -> EvaluationSet:
    """Return a query for each of ``users`` (rows of the log) at the instant of ``asked``, without a positive."""
    queries = Queries(
        user=users,
        history_end=asked.dataset.log.known_until(asked.queries.as_of)[users],
        context=no_context(len(users), MAXIMUM_INTERESTS),
        positives=Ragged.from_pairs([], [], len(users)),
        exclude=None,
        candidates=asked.queries.candidates,
        as_of=asked.queries.as_of,
    )
    return replace(asked, queries=queries)


def subject_appended(asked: EvaluationSet, event_name: str) -> EvaluationSet:
    """Return the same queries without context, with the context item as the newest event of the history.

    Each query gets a sequence of its own. The appended event has the name ``event_name`` and happens at the instant of
    the queries, or at the history's last event where that event is later.

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
        onsite=None if log.onsite is None else np.concatenate((log.onsite, np.zeros(len(shown), bool)))[source],
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

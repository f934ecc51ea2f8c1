"""The advertiser model and its baselines on the newest window: the lists and the figures of the recall report.

The recall is next-advertiser recall, of ranked advertisers; it differs from the advertiser hit of ranked items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.advertiser_queries import AdvertiserQueries, advertiser_queries, query_lists
from ml.evaluation.baselines import popularity_lists, popularity_scores
from ml.evaluation.intervals import Interval, confidence_interval
from ml.evaluation.metrics import DIVERSITY_DEPTH, Metrics, evaluate, recall_by_positive_segment, usable_ks
from ml.evaluation.model_names import AdvertiserModelName as Name
from ml.evaluation.recall_rows import differences
from ml.evaluation.report_rows import ReportRow, Segment, rows_of, segment_rows, with_bounds
from ml.examples.advertiser_period import AdvertiserPeriod
from ml.examples.pairs import ranges
from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.models.version_directories import ADVERTISER_EVALUATION, ADVERTISER_EVALUATION_POOLING
from ml.retrieval.lists import RankedLists, search_scores
from settings import Settings

INTERVAL_KS = (10, 100)
KNOWN, NEW = "known", "new"  # advertisers of the user's history, and others
SEGMENT_K = 10  # or the largest K below the size of a smaller index


@dataclass(frozen=True)
class AdvertiserComparison:
    """Every model's lists for the queries of the newest window."""

    queries: AdvertiserQueries
    lists: Mapping[str, RankedLists]
    known_advertisers: int  # of which the index is a sample
    trained_examples: int  # that the advertiser model may have learnt from at most


@dataclass(frozen=True)
class AdvertiserFigures:
    """The measured figures, by model."""

    metrics: Mapping[str, Metrics]
    intervals: Mapping[str, Mapping[int, Interval]]
    segment_k: int
    leads: Sequence[ReportRow]  # of the advertiser model over the others
    by_conversion: Mapping[str, pl.DataFrame]  # segment, queries, positives, recall at segment_k
    by_novelty: Mapping[str, pl.DataFrame]  # the same for "known" and "new" advertisers of the user

    def rows(self) -> list[ReportRow]:
        """Return every figure of every model."""
        metric = f"recall@{self.segment_k}"
        found = [row for model, metrics in self.metrics.items() for row in rows_of(model, metrics.figures())]
        bounded = [
            ReportRow.of(model, f"recall@{k}", interval)
            for model, intervals in self.intervals.items()
            for k, interval in intervals.items()
        ]
        segments = ((Segment.conversion, self.by_conversion), (Segment.novelty, self.by_novelty))
        return [*with_bounds(found, bounded), *self.leads] + [
            row
            for segment, frames in segments
            for model, frame in frames.items()
            for row in segment_rows(model, metric, segment, frame)
        ]


def compare_advertisers(whole: AdvertiserPeriod, directory: Path, settings: Settings) -> AdvertiserComparison:
    """Ask the evaluation models of a version and the baselines for the window after the models' end.

    Args:
        whole: the period that the version was trained on. directory: of the version.
    """
    model, pooling = (
        AdvertiserArtifact.load(directory / part) for part in (ADVERTISER_EVALUATION, ADVERTISER_EVALUATION_POOLING)
    )
    cutoff = model.trained_until
    queries = advertiser_queries(
        whole,
        model.data(whole.until(cutoff)),
        cutoff,
        settings=model.settings,
        maximum=settings.evaluation.maximum_users,
        index_size=settings.advertisers.report_index_size,
    )
    depth = max(DIVERSITY_DEPTH, *settings.evaluation.ks)
    lists = {
        **baseline_lists(queries, whole.rule.window_days, depth),
        # Learnt from the same data under the same basis: the same queries serve both.
        Name.mean_pooling: query_lists(pooling.network, queries, pooling.settings, depth),
        Name.advertiser_model: query_lists(model.network, queries, model.settings, depth),
    }
    training = model.settings.advertisers
    trained = training.epochs * training.epoch_examples
    return AdvertiserComparison(queries, lists, len(queries.advertisers.known(cutoff)), trained)


def baseline_lists(queries: AdvertiserQueries, recent_days: float, depth: int) -> dict[str, RankedLists]:
    """Return the lists of the baselines, counted from events before the queries' instant only.

    The baselines are popularity of all time, popularity of ``recent_days``, and the user's own most recent advertisers.
    """
    statistics, size = queries.advertisers.statistics, len(queries.advertisers)
    counts = {
        name: popularity_scores(statistics.item, statistics.seconds, queries.as_of, window_days=window, items=size)[
            queries.index
        ]
        for name, window in (
            (Name.popularity, None),
            (Name.recent_popularity, recent_days),
        )
    }
    lists: dict[str, RankedLists] = {name: popularity_lists(each, len(queries), depth) for name, each in counts.items()}
    lists[Name.recent_advertisers] = recent_advertisers(queries, counts[Name.recent_popularity], depth)
    return lists


def recent_advertisers(queries: AdvertiserQueries, popularity: NDArray[np.float32], depth: int) -> RankedLists:
    """Rank the advertisers of each user's history, newest event first; the popular advertisers follow.

    Args:
        popularity: [index] orders the advertisers that a user has no event with.
    """
    place = np.full(len(queries.advertisers), -1, np.int64)
    place[queries.index] = np.arange(len(queries.index))
    others = popularity / (popularity.max(initial=0) + 1)  # below 1

    own_log = queries.log.offsite

    def scores(start: int, stop: int) -> NDArray[np.float32]:
        begin, end = queries.log.offsets[queries.user[start:stop]], queries.history_end[start:stop]
        flat, query = ranges(begin, end)
        row = own_log.item[flat]
        column = np.where(row >= 0, place[np.maximum(row, 0)], -1)
        dense = np.repeat(others[None], stop - start, axis=0)
        own = column >= 0
        newness = 1 + (flat - begin[query] + 1) / (end - begin)[query]  # events stand in time order
        np.maximum.at(dense, (query[own], column[own]), newness[own].astype(np.float32))
        return dense

    return search_scores(scores, len(queries), len(queries.index), depth=depth)


def bounded_ks(ks: list[int], size: int) -> list[int]:
    """Return the list lengths whose recall has an interval, for an index of ``size`` advertisers."""
    usable = usable_ks(ks, size)
    return [k for k in usable if k in INTERVAL_KS] or usable[:1]


def measure_advertisers(
    comparison: AdvertiserComparison, event_names: list[str], ks: list[int], *, samples: int, seed: int
) -> AdvertiserFigures:
    """Return all figures of every model; a K is left out where the index has no more than K advertisers.

    Raises:
        ValueError: nobody converted in the window.
    """
    queries, lists = comparison.queries, comparison.lists
    positives, size = queries.positives, len(queries.index)
    usable, bounded = usable_ks(ks, size), bounded_ks(ks, size)
    segment_k = max(usable_ks([SEGMENT_K], size))
    conversion = pl.Series([None, *event_names], dtype=pl.String).gather(queries.positive_name)
    novelty = pl.Series(np.where(queries.repeated, KNOWN, NEW))
    return AdvertiserFigures(
        metrics={name: evaluate(each, positives, size, ks=usable) for name, each in lists.items()},
        intervals={
            name: {k: confidence_interval(each, positives, k, samples=samples, seed=seed) for k in bounded}
            for name, each in lists.items()
        },
        leads=differences(Name.advertiser_model, lists, positives, ks=bounded, samples=samples, seed=seed),
        segment_k=segment_k,
        by_conversion={
            name: recall_by_positive_segment(each, positives, conversion, segment_k) for name, each in lists.items()
        },
        by_novelty={
            name: recall_by_positive_segment(each, positives, novelty, segment_k) for name, each in lists.items()
        },
    )

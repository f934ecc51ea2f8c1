"""How sure a recall is: bootstrap intervals of one model's recall, of a difference and of a ratio of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.metrics import check_lists, per_query, ranks_of
from ml.retrieval.lists import Positives, RankedLists

NORMAL_95 = 1.959964
"""Standard errors from the middle to either end of a 95 % interval."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap bounds (NaN where no resamples were asked for)."""

    estimate: float
    low: float
    high: float


def percentile_interval(estimate: float, drawn: Sequence[float]) -> Interval:
    """Return an estimate with the 95 % interval of its resamples; those without a finite value are left out.

    >>> percentile_interval(2.0, [1.0, 2.0, 3.0, float("nan")])
    Interval(estimate=2.0, low=1.05, high=2.95)
    """
    known = np.array([each for each in drawn if np.isfinite(each)])
    if not len(known):
        return Interval(estimate, float("nan"), float("nan"))
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


def confidence_interval(
    lists: RankedLists,
    positives: Positives,
    k: int,
    *,
    owners: NDArray[np.int64] | None = None,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return Recall@K with a percentile bootstrap over queries, or over the owners of the queries.

    Args:
        owners: [queries] number of the user who asks, where a user asks several queries: all queries of a user are
            drawn together.
    """
    hits, counts = _hits_and_counts(lists, positives, k, owners)
    return _bootstrap(hits, counts, samples, seed=seed, level=level)


def paired_difference(
    first: RankedLists,
    second: RankedLists,
    positives: Positives,
    *,
    k: int,
    owners: NDArray[np.int64] | None = None,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return Recall@K of ``first`` minus Recall@K of ``second`` on the same queries, with a paired bootstrap.

    The bootstrap draws queries, or the ``owners`` of ``confidence_interval``. The interval is far narrower than the two
    separate ones, because queries that are hard for both models cancel out.

    >>> positives = Positives.from_pairs([0, 1], [5, 6], queries=2)
    >>> first, second = RankedLists.from_rows([[5], [6]], depth=1), RankedLists.from_rows([[5], [7]], depth=1)
    >>> paired_difference(first, second, positives, k=1, samples=0).estimate  # two hits of two, one of two
    0.5
    """
    (first_hits, counts), (second_hits, _) = (_hits_and_counts(each, positives, k, owners) for each in (first, second))
    return _bootstrap(first_hits - second_hits, counts, samples, seed=seed, level=level)


def paired_ratio(
    first: RankedLists,
    second: RankedLists,
    positives: Positives,
    *,
    k: int,
    owners: NDArray[np.int64] | None = None,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return Recall@K of ``first`` over Recall@K of ``second`` on the same queries, with a paired bootstrap.

    The bootstrap draws queries, or the ``owners`` of ``confidence_interval``. Where ``second`` finds nothing, the ratio
    is infinite, or NaN where ``first`` finds nothing either.

    >>> positives = Positives.from_pairs([0, 1], [5, 6], queries=2)
    >>> first, second = RankedLists.from_rows([[5], [6]], depth=1), RankedLists.from_rows([[5], [7]], depth=1)
    >>> paired_ratio(first, second, positives, k=1, samples=0).estimate  # two hits over one
    2.0
    """
    (first_hits, _), (second_hits, _) = (_hits_and_counts(each, positives, k, owners) for each in (first, second))
    return _bootstrap(first_hits, second_hits, samples, seed=seed, level=level)


def _hits_and_counts(
    lists: RankedLists, positives: Positives, k: int, owners: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count hits and positives of each query that has positives, or of each owner of such queries."""
    check_lists(lists, positives, k)
    hits = per_query(ranks_of(lists.items, positives.items, positives.query_rows) <= k, positives)
    counted = positives.counts > 0
    if owners is None:
        return hits[counted], positives.counts[counted]
    _, owner = np.unique(owners[counted], return_inverse=True)
    together = (np.bincount(owner, weights=each[counted]).astype(np.int64) for each in (hits, positives.counts))
    of_hits, of_counts = together
    return of_hits, of_counts


def _bootstrap(
    gains: NDArray[np.int64], counts: NDArray[np.int64], samples: int, *, seed: int, level: float
) -> Interval:
    """Return the percentile interval of sum(gains) / sum(counts) when queries are drawn again with replacement."""
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(gains.sum() / counts.sum())
        if not samples:
            return Interval(estimate, float("nan"), float("nan"))
        generator = np.random.default_rng(seed)
        drawn = np.empty(samples)
        for sample in range(samples):
            queries = generator.integers(0, len(counts), len(counts))
            drawn[sample] = gains[queries].sum() / counts[queries].sum()
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))

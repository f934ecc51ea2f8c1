"""Figures of retrieved lists: recall, hits, nDCG, advertiser and category hits, coverage, diversity, novelty.

A query without a positive takes no part in any figure, and neither does its list. A positive outside the catalogue (-1)
counts as a miss. Every figure is a share between 0 and 1, novelty apart (bits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ml.retrieval.lists import NO_ITEM, Positives, RankedLists

DIVERSITY_DEPTH = 100
TOP = 10  # the first screen: nDCG, coverage and novelty look at these
UNKNOWN = -1
COMPARISONS_IN_MEMORY = 1 << 23

Labels = Sequence[Any] | NDArray[Any] | pl.Series


@dataclass(frozen=True)
class Metrics:
    """The figures that ``evaluate`` measures. A figure whose input was not given is ``None`` or an empty dictionary.

    Attributes:
        queries: queries with at least one positive.
        positives: their positives.
        recall: by K: positives within the first K, over positives, all queries together.
        macro_recall: by K: the mean over queries of a query's recall.
        hit_rate: by K: the share of queries with a positive within the first K.
        ndcg_at_10: mean over queries of DCG@10 with gain 1 a positive, over the DCG@10 of the best possible list.
        advertiser_hit: by K: the share of positives of a known advertiser that has any of the first K items.
        category_hit: by K: the share of positives with a known category path that any of the first K items has.
        coverage_at_10: distinct items in the first 10 of all lists, over the catalogue.
        diversity90: share of the catalogue that the most retrieved items need to fill 90 % of all slots, at depth 100.
        advertiser_diversity90: the same for the known advertisers of the catalogue and the slots of their items.
        novelty: mean of -log2(share of all popularity) over the items in the first 10, in bits.
        never_engaged: share of the slots, at depth 100, whose item has no event in training.
    """

    queries: int
    positives: int
    recall: dict[int, float]
    macro_recall: dict[int, float]
    hit_rate: dict[int, float]
    ndcg_at_10: float
    advertiser_hit: dict[int, float]
    category_hit: dict[int, float]
    coverage_at_10: float
    diversity90: float
    advertiser_diversity90: float | None
    novelty: float | None
    never_engaged: float | None

    @property
    def deepest(self) -> int:
        """Return the largest K of ``recall``."""
        return max(self.recall)

    def figures(self) -> dict[str, float]:
        """Return every measured figure, by the name that tables and reports use, such as ``recall@100``.

        A new figure is named here and nowhere else.
        """
        by_k = {
            "recall": self.recall,
            "macro_recall": self.macro_recall,
            "hit_rate": self.hit_rate,
            "advertiser_hit": self.advertiser_hit,
            "category_hit": self.category_hit,
        }
        figures: dict[str, float | None] = {"queries": self.queries, "positives": self.positives}
        figures |= {f"{name}@{k}": value for name, values in by_k.items() for k, value in values.items()}
        figures |= {
            f"ndcg@{TOP}": self.ndcg_at_10,
            f"coverage@{TOP}": self.coverage_at_10,
            "diversity90": self.diversity90,
            "advertiser_diversity90": self.advertiser_diversity90,
            "novelty": self.novelty,
            f"never_engaged@{DIVERSITY_DEPTH}": self.never_engaged,
        }
        return {name: float(value) for name, value in figures.items() if value is not None}


def says_something(figure: str, size: int) -> bool:
    """Return whether a figure says something about ``size`` entries: a list of all entries holds every positive.

    >>> says_something("ndcg@10", 3), says_something("ndcg@10", 60), says_something("diversity90", 3)
    (False, True, True)
    """
    _, at, k = figure.partition("@")
    return not at or int(k) in usable_ks([int(k)], size)


def mlflow_name(metric: str) -> str:
    """Return the name of a metric in MLflow.

    A name in MLflow may not have an ``@``. The same holds for Lightning's metrics, which Lightning sends to MLflow.

    >>> mlflow_name("validation_recall@100")
    'validation_recall_at_100'
    """
    return metric.replace("@", "_at_")


def mlflow_metrics(figures: Mapping[str, float | None]) -> dict[str, float]:
    """Return the figures that are finite numbers, by their names in MLflow."""
    known = {name: value for name, value in figures.items() if value is not None and np.isfinite(value)}
    return {mlflow_name(name): value for name, value in known.items()}


def usable_ks(ks: Iterable[int], size: int) -> list[int]:
    """Return the list lengths below ``size``, ascending; 1 where there is no such length.

    A longer list is of no use: a list of all ``size`` entries holds every positive.

    >>> usable_ks([10, 50, 100], 60), usable_ks([10, 50, 100], 3)
    ([10, 50], [1])
    """
    return sorted({k for k in ks if k < size}) or [1]


def evaluate(
    lists: RankedLists,
    positives: Positives,
    catalogue_size: int,
    *,
    advertisers: NDArray[np.int64] | None = None,
    categories: NDArray[np.int64] | None = None,
    ks: Sequence[int] = (10, 50, 100),
    popularity: ArrayLike | None = None,
) -> Metrics:
    """Measure all figures of one model's lists.

    Args:
        lists: [queries, depth] with depth of at least the largest K, and of 100 or the whole catalogue.
        positives: for the same queries.
        catalogue_size: number of items that could be retrieved.
        advertisers: [items] a code per advertiser; -1 is unknown and not counted.
        categories: [items] a code per category path; -1 is unknown and not counted.
        ks: list lengths.
        popularity: [items] events in training; novelty adds one to each, so that a new item is not infinitely novel.

    Raises:
        ValueError: no query has a positive, or the lists are too short or for other queries.

    >>> lists = RankedLists.from_rows([[3, 0], [1, 2]])
    >>> found = evaluate(lists, Positives.from_pairs([0, 0, 1], [0, 1, 1], queries=2), catalogue_size=4, ks=[1, 2])
    >>> {k: round(value, 3) for k, value in found.recall.items()}  # one, then two of the three positives
    {1: 0.333, 2: 0.667}
    >>> found.macro_recall  # 0 of 2 and 1 of 1; then 1 of 2 and 1 of 1
    {1: 0.5, 2: 0.75}
    """
    check_lists(lists, positives, max([*ks, min(DIVERSITY_DEPTH, catalogue_size)]))
    asked = np.flatnonzero(positives.counts)
    lists, positives = lists.take(asked), positives.take(asked)
    ranks = ranks_of(lists.items, positives.items, positives.query_rows)
    hits = {k: per_query(ranks <= k, positives) for k in ks}
    slots = lists.items[:, :DIVERSITY_DEPTH]
    first = lists.items[:, :TOP][lists.items[:, :TOP] != NO_ITEM]
    return Metrics(
        queries=len(asked),
        positives=len(ranks),
        recall={k: float(np.mean(ranks <= k)) for k in ks},
        macro_recall={k: float(np.mean(hits[k] / positives.counts)) for k in ks},
        hit_rate={k: float(np.mean(hits[k] > 0)) for k in ks},
        ndcg_at_10=_ndcg(ranks, positives),
        advertiser_hit={} if advertisers is None else _group_hit(lists, positives, advertisers, ks),
        category_hit={} if categories is None else _group_hit(lists, positives, categories, ks),
        coverage_at_10=len(np.unique(first)) / catalogue_size,
        diversity90=share_for_90_percent(slots, catalogue_size),
        advertiser_diversity90=None if advertisers is None else _advertiser_diversity(slots, advertisers),
        novelty=None if popularity is None else _novelty(first, np.asarray(popularity, np.float64)),
        never_engaged=None if popularity is None else share_never_engaged(slots, popularity),
    )


def share_for_90_percent(retrieved: ArrayLike, size: int) -> float:
    """Return the share of ``size`` entries that, most retrieved first, fill 90 % of the slots; -1 is no slot.

    Entry 0 fills seven of ten slots. Entries 0 and 1 fill nine, so two of eight entries are needed:

    >>> share_for_90_percent([0, 0, 0, 0, 0, 0, 0, 1, 1, 2], size=8)
    0.25
    """
    entries = np.asarray(retrieved).ravel()
    slots = np.sort(np.bincount(entries[entries != NO_ITEM]))[::-1]
    total = int(slots.sum())
    if not total:
        return 0.0
    return (int(np.searchsorted(slots.cumsum(), 0.9 * total)) + 1) / size


def share_never_engaged(retrieved: NDArray[np.int64], popularity: ArrayLike) -> float:
    """Return the share of the slots whose item nobody has engaged with; 0 without slots. An entry of -1 is no slot.

    Args:
        retrieved: rows of items, in any shape. popularity: [items] events.

    >>> share_never_engaged(np.array([[0, 1], [2, -1]]), np.array([5.0, 0.0, 1.0]))
    0.3333333333333333
    """
    slots = retrieved[retrieved != NO_ITEM]
    return float(np.mean(np.asarray(popularity)[slots] == 0)) if len(slots) else 0.0


def recall_by_segment(lists: RankedLists, positives: Positives, segment: Labels, k: int) -> pl.DataFrame:
    """Return Recall@K by a label of the query, such as history length or country.

    Args:
        segment: [queries] labels; a query without a label (null) is left out.

    Returns:
        segment, queries, positives, recall; sorted by segment.

    >>> lists = RankedLists.from_rows([[5], [5], [6]], depth=1)
    >>> positives = Positives.from_pairs([0, 1, 2], [5, 6, 6], queries=3)
    >>> recall_by_segment(lists, positives, ["DE", "DE", "FR"], k=1).rows()
    [('DE', 2, 2, 0.5), ('FR', 1, 1, 1.0)]
    """
    labels = pl.Series("segment", segment)
    if len(labels) != positives.queries:
        raise ValueError(f"{len(labels)} segment labels for {positives.queries} queries: one label a query")
    return recall_by_positive_segment(lists, positives, labels.gather(positives.query_rows), k)


def recall_by_positive_segment(lists: RankedLists, positives: Positives, segment: Labels, k: int) -> pl.DataFrame:
    """Return Recall@K by a label of the positive, such as its conversion type.

    Args:
        segment: [positives] labels, in the order of ``positives.items``; null is left out.

    Returns:
        segment, queries (with a positive of the segment), positives, recall; sorted by segment.
    """
    labels = pl.Series("segment", segment)
    if len(labels) != len(positives.items):
        raise ValueError(f"{len(labels)} segment labels for {len(positives.items)} positives: one label a positive")
    _check_shapes(lists, positives, k)
    hit = ranks_of(lists.items, positives.items, positives.query_rows) <= k
    frame = pl.DataFrame({"segment": labels, "query": positives.query_rows, "hit": hit})
    return (
        frame.drop_nulls("segment")
        .group_by("segment")
        .agg(
            pl.col("query").n_unique().cast(pl.Int64).alias("queries"),
            pl.len().cast(pl.Int64).alias("positives"),
            pl.col("hit").mean().alias("recall"),
        )
        .sort("segment")
    )


def check_lists(lists: RankedLists, positives: Positives, depth: int) -> None:
    """Check that there is something to measure.

    Raises:
        ValueError: no query has a positive, or the lists are too short or for other queries.
    """
    _check_shapes(lists, positives, depth)
    if not len(positives.items):
        raise ValueError("no query has a positive: there is nothing to evaluate")


def _check_shapes(lists: RankedLists, positives: Positives, depth: int) -> None:
    if lists.queries != positives.queries:
        raise ValueError(f"lists of {lists.queries} queries, positives of {positives.queries}: they must be the same")
    if lists.depth < depth:
        raise ValueError(f"the lists are {lists.depth} deep, these figures need {depth}: retrieve deeper lists")


def ranks_of(shown: NDArray[np.int64], wanted: NDArray[np.int64], query_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the best rank (1 = first) of each wanted entry in its query's row of ``shown``; depth + 1 if absent."""
    depth = shown.shape[1]
    ranks = np.full(len(wanted), depth + 1, np.int64)
    size = max(1, COMPARISONS_IN_MEMORY // depth)
    for start in range(0, len(wanted), size):
        part = slice(start, start + size)
        equal = (shown[query_rows[part]] == wanted[part, None]) & (wanted[part, None] != NO_ITEM)
        ranks[part] = np.where(equal.any(axis=1), equal.argmax(axis=1) + 1, depth + 1)
    return ranks


def per_query(hit: NDArray[np.bool_], positives: Positives) -> NDArray[np.int64]:
    """Count the hits of each query [queries]."""
    return np.bincount(positives.query_rows[hit], minlength=positives.queries)


def _ndcg(ranks: NDArray[np.int64], positives: Positives) -> float:
    gain = np.where(ranks <= TOP, 1 / np.log2(ranks + 1), 0.0)
    gained = np.bincount(positives.query_rows, weights=gain, minlength=positives.queries)
    ideal = np.cumsum(1 / np.log2(np.arange(2, TOP + 2)))
    return float(np.mean(gained / ideal[np.minimum(positives.counts, TOP) - 1]))


def _groups_of(items: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(items == NO_ITEM, UNKNOWN, groups[items])


def _group_hit(
    lists: RankedLists, positives: Positives, groups: NDArray[np.int64], ks: Sequence[int]
) -> dict[int, float]:
    wanted = _groups_of(positives.items, groups)
    known = wanted != UNKNOWN
    if not known.any():
        return {}
    ranks = ranks_of(_groups_of(lists.items, groups), wanted[known], positives.query_rows[known])
    return {k: float(np.mean(ranks <= k)) for k in ks}


def _advertiser_diversity(slots: NDArray[np.int64], advertisers: NDArray[np.int64]) -> float | None:
    known = len(np.unique(advertisers[advertisers != UNKNOWN]))
    return share_for_90_percent(_groups_of(slots, advertisers), known) if known else None


def _novelty(first: NDArray[np.int64], popularity: NDArray[np.float64]) -> float | None:
    share = (popularity + 1) / (popularity + 1).sum()
    return float(np.mean(-np.log2(share[first]))) if len(first) else None

"""The content of the item reports: the comparison on the newest window, and the contextual requests in that window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.metrics import Metrics, evaluate, usable_ks
from ml.evaluation.model_lists import all_lists, network_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet, contextual_queries, day_starts, future_queries
from ml.examples.period import TrainingPeriod, whole_log
from ml.features.content import category_nodes
from ml.features.event_log import row_numbers, to_seconds
from ml.models.artifact import ModelArtifact
from ml.retrieval.lists import RankedLists
from settings import UNKNOWN_ADVERTISER, Settings

SURVIVED = ("impressed", "clicked", "converted")
CONTEXT_KS = (10, 100)
HISTORY_BUCKETS = (1, 3, 6, 11, 26, 51)  # first lengths of the buckets of the report by history length


@dataclass(frozen=True)
class Comparison:
    """Queries of the newest window, and the models that learnt until the window began."""

    asked: EvaluationSet
    artifacts: Mapping[ModelName, ModelArtifact]
    user_ids: pl.Series  # [queries]
    item_ids: pl.Series  # [candidates]
    advertisers: NDArray[np.int64]  # [candidates] code of the advertiser, -1 = unknown
    popularity: NDArray[np.float32]  # [candidates] events before the cut-off
    cutoff: float


def load_comparison(
    period: TrainingPeriod, artifacts: Mapping[ModelName, ModelArtifact], settings: Settings
) -> Comparison:
    """Load the comparison models of a version, with queries for the window after the end of these models.

    The queries are users with conversions in that window.
    """
    one = artifacts[ModelName.contextual]
    cutoff = one.trained_until
    dataset = one.dataset(period.until(cutoff))
    learnt = dataset.log
    queries, dataset = future_queries(
        dataset,
        whole_log(period, one.settings),
        cutoff,
        rule=period.rule,
        maximum=settings.evaluation.maximum_users,
        seed=settings.training.seed,
        only_candidates=False,
    )
    return Comparison(
        asked=EvaluationSet(dataset, queries, learnt, period.rule.window_days),
        artifacts=artifacts,
        user_ids=dataset.log.user_ids.gather(queries.user),
        item_ids=dataset.features.item_ids.gather(queries.candidates),
        advertisers=advertiser_codes(period.items)[queries.candidates],
        popularity=np.bincount(dataset.statistics.item, minlength=len(dataset.features)).astype(np.float32)[
            queries.candidates
        ],
        cutoff=cutoff,
    )


def advertiser_codes(items: pl.DataFrame) -> NDArray[np.int64]:
    """Return a dense code of each item's advertiser, items sorted by id; -1 where the advertiser is unknown."""
    advertiser = items.sort("item_id")["advertiser_id"]
    names = advertiser.drop_nulls().unique().sort()
    return row_numbers(names.filter(names != UNKNOWN_ADVERTISER), advertiser)


def comparison_lists(comparison: Comparison, depth: int) -> dict[ModelName, RankedLists]:
    """Return the lists of every baseline and trained model, in rows of the candidates."""
    return all_lists(comparison.artifacts, comparison.asked, depth)


def lists_to_frame(lists: Mapping[ModelName, RankedLists], user_ids: pl.Series) -> pl.DataFrame:
    """Return the lists as the warehouse keeps them: model, user_id, items (list of candidate rows, best first)."""
    frames = []
    for model, ranked in lists.items():
        items = pl.Series("items", ranked.items.astype(np.int32)).cast(pl.List(pl.Int32))
        frames.append(pl.DataFrame([user_ids.alias("user_id"), items]).with_columns(model=pl.lit(model.value)))
    return pl.concat(frames)


def lists_of_frame(frame: pl.DataFrame, user_ids: pl.Series) -> dict[ModelName, RankedLists]:
    """Return the lists that ``lists_to_frame`` has turned into a table, in the order of the reports.

    The table does not keep the scores: each score here is the negative rank.
    """
    found = {}
    for model in ModelName:
        rows = frame.filter(model=model.value)
        if not len(rows):
            continue
        rows = user_ids.alias("user_id").to_frame().join(rows, on="user_id", how="left", maintain_order="left")
        items = rows["items"].explode().to_numpy().reshape(len(rows), -1).astype(np.int64)
        scores = np.where(items >= 0, -np.arange(items.shape[1], dtype=np.float32), -np.inf).astype(np.float32)
        found[model] = RankedLists(items, scores)
    return found


def measure(comparison: Comparison, lists: RankedLists, ks: list[int]) -> Metrics:
    """Return all figures of one model on the comparison's queries."""
    return evaluate(
        lists,
        comparison.asked.queries.positives,
        len(comparison.item_ids),
        advertisers=comparison.advertisers,
        ks=usable_ks(ks, len(comparison.item_ids)),
        popularity=comparison.popularity,
    )


def history_segments(comparison: Comparison) -> pl.Series:
    """Return the bucket of each query's history length, as text that sorts [queries]."""
    queries = comparison.asked.queries
    length = queries.history_end - comparison.asked.dataset.log.offsets[queries.user]
    bucket = np.searchsorted(HISTORY_BUCKETS, length, side="right") - 1
    ends = [f"{end - 1}" for end in HISTORY_BUCKETS[1:]] + ["more"]
    names = [f"{begin}-{end}" for begin, end in zip(HISTORY_BUCKETS, ends, strict=True)]
    order = pl.Enum(names)
    return pl.Series([names[max(row, 0)] for row in bucket], dtype=order)


def country_segments(comparison: Comparison, users: pl.DataFrame) -> pl.Series:
    """Return each query's country; null where the country is unknown [queries]."""
    known = comparison.user_ids.alias("user_id").to_frame().join(users, on="user_id", how="left", maintain_order="left")
    return known["country"]


def positive_name_segments(comparison: Comparison, event_names: list[str]) -> pl.Series:
    """Return the event name of each positive, in the order of the positives."""
    codes = comparison.asked.queries.positive_name
    assert codes is not None
    return pl.Series([None, *event_names], dtype=pl.String).gather(codes)


@dataclass(frozen=True)
class ContextEvaluation:
    """Requests with a subject item after the cut-off."""

    asked: EvaluationSet
    source: str  # "logged impressions" or "basket proxy"
    requests: pl.DataFrame  # request_id, user_id, subject_item_id


def context_evaluation(
    comparison: Comparison, period: TrainingPeriod, impressions: pl.DataFrame, *, maximum: int, seed: int
) -> ContextEvaluation | None:
    """Return the contextual queries of the impression log, or of baskets where no such log exists; None without either.

    Logged impressions: requests with a subject item after the cut-off; positives are the items that survived the funnel
    to an impression.

    Basket proxy: the first item of a user's day is the context, and the other items of that day are the positives.
    """
    logged = impressions.filter(
        pl.col("stage").is_in(SURVIVED)
        & pl.col("subject_item_id").is_not_null()
        & (pl.col("item_id") != pl.col("subject_item_id"))
        & (pl.Series(to_seconds(impressions["request_time"])) >= comparison.cutoff)
    )
    source = "logged impressions" if len(logged) else "basket proxy"
    pairs = logged if len(logged) else baskets(period, comparison.cutoff)
    requests = (
        pairs.select("request_id", "user_id", "request_time", "subject_item_id").unique("request_id").sort("request_id")
    )
    if len(requests) > maximum:
        requests = requests.sample(maximum, seed=seed).sort("request_id")
    if not len(requests):
        return None
    pairs = pairs.join(requests.select("request_id"), on="request_id", how="semi").unique(["request_id", "item_id"])
    dataset = comparison.asked.dataset
    ids = dataset.features.item_ids
    queries, dataset = contextual_queries(
        dataset,
        dataset.log,
        dataset.log.user_rows(requests["user_id"]),
        seconds=day_starts(to_seconds(requests["request_time"]), period.end),
        subject=row_numbers(ids, requests["subject_item_id"]),
        target=(row_numbers(requests["request_id"], pairs["request_id"]), row_numbers(ids, pairs["item_id"])),
        cutoff=comparison.cutoff,
    )
    asked = EvaluationSet(dataset, queries, comparison.asked.learnt, period.rule.window_days)
    return ContextEvaluation(asked, source, requests)


def baskets(period: TrainingPeriod, cutoff: float) -> pl.DataFrame:
    """Return positive events after the cut-off as requests: one a user and day with at least two different items.

    Returns:
        request_id, user_id, request_time, subject_item_id, item_id (one row a positive).
    """
    seconds = pl.Series(to_seconds(period.events["event_time"]))
    wanted = pl.col("event_name").is_in(list(period.rule.event_names)) & pl.col("item_id").is_not_null()
    day = pl.Series("day", day_starts(seconds.to_numpy(), period.end))
    events = period.events.with_columns(day).filter(wanted & (seconds >= cutoff))
    first = events.group_by("user_id", "day", maintain_order=True).agg(
        subject_item_id=pl.col("item_id").first(), request_time=pl.col("event_time").first()
    )
    return (
        events.join(first, on=["user_id", "day"])
        .filter(pl.col("item_id") != pl.col("subject_item_id"))
        .with_columns(request_id=pl.format("{} {}", "user_id", pl.col("day").cast(pl.Int64)))
        .select("request_id", "user_id", "request_time", "subject_item_id", "item_id")
    )


@dataclass(frozen=True)
class ContextResult:
    """One model on the contextual requests."""

    model: ModelName
    metrics: Metrics
    relevance: float  # median relevance of the first ten candidates to the subject
    lists: RankedLists


def context_results(comparison: Comparison, evaluation: ContextEvaluation, items: pl.DataFrame) -> list[ContextResult]:
    """Measure each way of answering: item-kNN from the subject, popularity, the models without and with context."""
    depth = 100
    asked, withheld = evaluation.asked, ModelName.contextual_without_context
    lists = all_lists(comparison.artifacts, asked, depth)
    base = comparison.artifacts[withheld.base]
    lists[withheld] = network_lists(withheld, base.network, asked, settings=base.settings, depth=depth)
    paths = category_nodes(items.sort("item_id")["category"])
    results = []
    for model, ranked in lists.items():
        queries = asked.queries
        size = len(queries.candidates)
        metrics = evaluate(
            ranked, queries.positives, size, advertisers=comparison.advertisers, ks=usable_ks(CONTEXT_KS, size)
        )
        relevance = median_relevance(ranked, asked, paths)
        results.append(ContextResult(model, metrics, relevance, ranked))
    return results


def median_relevance(lists: RankedLists, asked: EvaluationSet, paths: pl.Series, first: int = 10) -> float:
    """Return the median over requests of the mean relevance of the first candidates to the subject.

    The relevance of an item to a subject is the share of the subject's category path that the item's path has too,
    0..1. The figure stands in for human labels, where none covers the pair. Requests whose subject has no category
    are left out.
    """
    queries = asked.queries
    path = paths.to_list()
    known = np.flatnonzero(queries.context.subject >= 0)
    values = []
    for query in known:
        subject = path[queries.context.subject[query]]
        shown = lists.items[query, :first]
        if subject and (shown >= 0).any():
            nodes = set(subject)
            candidates = queries.candidates[shown[shown >= 0]]
            values.append(np.mean([len(nodes.intersection(path[item])) / len(nodes) for item in candidates]))
    return float(np.median(values)) if values else float("nan")


def narrowed(comparison: Comparison, queries: NDArray[np.int64]) -> Comparison:
    """Return the same comparison for some of its queries."""
    asked = comparison.asked
    kept = asked.queries.take(queries)
    return replace(comparison, asked=replace(asked, queries=kept), user_ids=comparison.user_ids.gather(queries))

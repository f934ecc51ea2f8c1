"""Requests with a context as evaluation queries: logged requests beside an item or with a search query.

Where no requests are logged, baskets stand in for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.queries import EvaluationSet, contextual_queries, hiding
from ml.examples.logged_requests import REQUEST_COLUMNS, day_starts, shown_in_context
from ml.examples.named_interests import search_context, with_searches
from ml.examples.period import TrainingPeriod
from ml.features.event_log import row_numbers, to_seconds
from settings import FeatureSettings

BASKETS = "baskets"
"""The name of the surface where baskets stand in for logged requests."""
PAIRS_IN_MEMORY = 1 << 26
"""Pairs of a request and a hidden item, about, at most: 512 MiB, and some times as much while they are made."""
PROBED_REQUESTS = 100

HiddenItems = Callable[[pl.DataFrame, pl.Series], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""From requests (user_id, request_time) and the ids of the candidates to pairs [pairs] of a row of the requests and a
row of the candidates: the items that the request could not have shown."""


@dataclass(frozen=True)
class ContextEvaluation:
    """Requests with a subject item or a search query after an instant, and the answers that they had.

    Attributes:
        requests: request_id, user_id, request_time, subject_item_id, query, surface; one row a query.
        hides: whether the lists lack the items that a request could not have shown.
    """

    asked: EvaluationSet
    requests: pl.DataFrame
    hides: bool = False

    @property
    def source(self) -> str:
        """Return the origin of the requests, in words."""
        return "basket proxy" if (self.requests["surface"] == BASKETS).all() else "logged impressions"


def context_evaluation(
    home_feed: EvaluationSet,
    period: TrainingPeriod,
    impressions: pl.DataFrame | None,
    *,
    features: FeatureSettings,
    maximum: int,
    seed: int,
    hidden_items: HiddenItems | None = None,
) -> ContextEvaluation | None:
    """Return the contextual queries of the impression log, or of baskets where no such log exists; None without either.

    Logged impressions: requests with a subject item or a search query; positives are the items that survived the funnel
    to an impression. A query is understood as the service understands it, by the catalogue of the queries' instant.

    Basket proxy: the first item of a user's day is the context, and the other items of that day are the positives.

    Args:
        home_feed: queries at the same instant, over the same candidates and with the same log.
        period: reaches to the end of the window of the queries.
        impressions: of the landing zone's table; None where there is no such table.
        features: of the dataset. maximum: at most so many requests, a seeded sample.
        hidden_items: of logged requests; no list holds such an item. A positive that is hidden stays a positive, and
            is a miss. None: nothing is hidden.
    """
    since = home_feed.queries.as_of
    pairs = baskets(period, since) if impressions is None else logged_requests(impressions, since)
    logged = impressions is not None and bool(len(pairs))
    if not len(pairs):
        pairs = baskets(period, since)
    requests = (
        pairs.select("request_id", "user_id", "request_time", "subject_item_id", "query", "surface")
        .unique("request_id")
        .sort("request_id")
    )
    if len(requests) > maximum:
        requests = requests.sample(maximum, seed=seed).sort("request_id")
    if not len(requests):
        return None
    if logged and hidden_items:
        requests = _held_in_memory(requests, hidden_items, home_feed, seed)
    pairs = pairs.join(requests.select("request_id"), on="request_id", how="semi").unique(["request_id", "item_id"])
    dataset = home_feed.dataset
    ids = dataset.features.item_ids
    queries, dataset = contextual_queries(
        dataset,
        dataset.log,
        dataset.log.user_rows(requests["user_id"]),
        seconds=day_starts(to_seconds(requests["request_time"]), period.end),
        subject=row_numbers(ids, requests["subject_item_id"]),
        target=(row_numbers(requests["request_id"], pairs["request_id"]), row_numbers(ids, pairs["item_id"])),
        cutoff=since,
    )
    if requests["query"].count():
        catalogue = period.until(since).items.sort("item_id")
        named = search_context(
            requests["query"], catalogue, dataset.features, basis=dataset.basis, buckets=features.category_buckets
        )
        typed = requests["query"].is_not_null().to_numpy()
        queries = replace(queries, context=with_searches(queries.context, named, typed))
    if logged and hidden_items:
        queries = hiding(queries, hidden_items(requests, ids.gather(queries.candidates)))
    asked = EvaluationSet(dataset, queries, home_feed.learnt, home_feed.recent_days)
    return ContextEvaluation(asked, requests, hides=logged and hidden_items is not None)


def _held_in_memory(
    requests: pl.DataFrame, hidden_items: HiddenItems, home_feed: EvaluationSet, seed: int
) -> pl.DataFrame:
    """Return the requests, or a seeded sample if their hidden items, as a part of them shows, are too many to hold."""
    candidates = home_feed.queries.candidates
    if len(requests) * len(candidates) <= PAIRS_IN_MEMORY:
        return requests
    probes = min(len(requests), PROBED_REQUESTS, max(1, PAIRS_IN_MEMORY // len(candidates)))
    probed = requests.sample(probes, seed=seed)
    hidden, _ = hidden_items(probed, home_feed.dataset.features.item_ids.gather(candidates))
    held = max(1, int(PAIRS_IN_MEMORY * len(probed) / max(1, len(hidden))))
    return requests if len(requests) <= held else requests.sample(held, seed=seed).sort("request_id")


def logged_requests(impressions: pl.DataFrame, since: float) -> pl.DataFrame:
    """Return the impressions with a subject item or a query, from ``since`` on, that a user has seen.

    Returns:
        request_id, user_id, request_time, subject_item_id, query (only without a subject), surface, item_id; one row a
        positive.
    """
    recent = impressions.filter(pl.Series(to_seconds(impressions["request_time"])) >= since)
    has_subject = pl.col("subject_item_id").is_not_null()
    shown = shown_in_context(recent.lazy()).collect()
    return shown.with_columns(pl.when(~has_subject).then("query")).select(REQUEST_COLUMNS)


def baskets(period: TrainingPeriod, since: float) -> pl.DataFrame:
    """Return positive events from ``since`` on as requests: one a user and day with at least two different items.

    Returns:
        request_id, user_id, request_time, subject_item_id, query (null), surface, item_id (one row a positive).
    """
    seconds = pl.Series(to_seconds(period.events["event_time"]))
    wanted = pl.col("event_name").is_in(list(period.rule.event_names)) & pl.col("item_id").is_not_null()
    day = pl.Series("day", day_starts(seconds.to_numpy(), period.end))
    events = period.events.with_columns(day).filter(wanted & (seconds >= since))
    first = events.group_by("user_id", "day", maintain_order=True).agg(
        subject_item_id=pl.col("item_id").first(), request_time=pl.col("event_time").first()
    )
    return (
        events.join(first, on=["user_id", "day"])
        .filter(pl.col("item_id") != pl.col("subject_item_id"))
        .with_columns(
            request_id=pl.format("{} {}", "user_id", pl.col("day").cast(pl.Int64)),
            query=pl.lit(None, pl.String),
            surface=pl.lit(BASKETS),
        )
        .select("request_id", "user_id", "request_time", "subject_item_id", "query", "surface", "item_id")
    )

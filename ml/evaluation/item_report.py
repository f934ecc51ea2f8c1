"""The content of the item reports: the models of a version and their baselines on the newest window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.metrics import Metrics, evaluate, usable_ks
from ml.evaluation.model_lists import all_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet, future_queries
from ml.evaluation.untrained_parts import UntrainedParts
from ml.examples.period import TrainingPeriod, whole_log
from ml.features.event_log import row_numbers
from ml.models.artifact import ModelArtifact
from ml.retrieval.lists import RankedLists
from settings import UNKNOWN_ADVERTISER, Settings

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

    @property
    def settings(self) -> Settings:
        """Return the settings under which the contextual model was trained."""
        return self.artifacts[ModelName.contextual].settings


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


def comparison_lists(comparison: Comparison, parts: UntrainedParts, depth: int) -> dict[ModelName, RankedLists]:
    """Return the lists of every baseline and trained model, in rows of the candidates."""
    return all_lists(comparison.artifacts, parts, comparison.asked, depth=depth)


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
        categories=comparison.asked.categories,
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


def content_type_segments(comparison: Comparison, items: pl.DataFrame) -> pl.Series:
    """Return the content type of the item of each positive, in the order of the positives; null where it is unknown.

    Args:
        items: the catalogue: item_id, content_type.
    """
    wanted = comparison.asked.queries.positives.items
    known = comparison.item_ids.gather(np.maximum(wanted, 0)).set(pl.Series(wanted < 0), None).alias("item_id")
    types = items.select("item_id", pl.col("content_type").cast(pl.String))
    return known.to_frame().join(types, on="item_id", how="left", maintain_order="left")["content_type"]


def positive_name_segments(comparison: Comparison, event_names: list[str]) -> pl.Series:
    """Return the event name of each positive, in the order of the positives."""
    codes = comparison.asked.queries.positive_name
    assert codes is not None
    return pl.Series([None, *event_names], dtype=pl.String).gather(codes)

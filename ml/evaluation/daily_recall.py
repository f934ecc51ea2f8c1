"""Recall of yesterday's states and item embeddings, and of yesterday's popularity, on a day's conversions."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.baselines import popularity_lists, popularity_scores
from ml.evaluation.metrics import DIVERSITY_DEPTH, evaluate, usable_ks
from ml.evaluation.model_names import ModelName
from ml.examples.pairs import LabelRule
from ml.features.event_log import row_numbers, to_seconds
from ml.retrieval.lists import Ragged, search

RECENT_DAYS = 28.0


def measure_day(
    log: pl.DataFrame,
    start: datetime,
    rule: LabelRule,
    *,
    users: pl.Series,
    user_embeddings: NDArray[np.float32],
    item_ids: pl.Series,
    item_embeddings: NDArray[np.float32],
    ks: list[int],
    maximum_users: int,
) -> pl.DataFrame:
    """Measure recall and diversity of the served model and of recent popularity on the positives from ``start`` on.

    Args:
        log: events up to the end of the day. start: the beginning of the day.
        users: users with a state as of yesterday (sorted), and their embeddings [users, W].
        maximum_users: if more users convert, a sample of so many, which depends on the day only.
        item_ids: of yesterday's index (sorted), and their embeddings [items, W].

    Returns:
        model, users, positives, metric, value; value null where nobody with a state converted.
    """
    happened = pl.col("event_time") >= start
    positives = (
        log.filter(happened & pl.col("event_name").is_in(list(rule.event_names)) & pl.col("item_id").is_not_null())
        .select("user_id", "item_id")
        .unique()
        .filter(pl.col("user_id").is_in(users.implode()))
    )
    history = log.filter(~happened).select("user_id", "item_id").drop_nulls()
    if not rule.repeats_count:
        positives = positives.join(history, on=["user_id", "item_id"], how="anti")
    asked = positives["user_id"].unique().sort()
    if len(asked) > maximum_users:
        asked = asked.sample(maximum_users, seed=start.toordinal()).sort()
        positives = positives.filter(pl.col("user_id").is_in(asked.implode()))
    usable = usable_ks(ks, len(item_ids))
    depth = min(max([DIVERSITY_DEPTH, *usable]), len(item_ids))
    if not len(asked) or not depth:
        return _nothing(len(asked), len(positives))
    wanted = Ragged.from_pairs(
        row_numbers(asked, positives["user_id"]), row_numbers(item_ids, positives["item_id"]), len(asked)
    )
    exclude = None if rule.repeats_count else _seen(history, asked, item_ids)
    times = log.filter(~happened)
    recent = popularity_scores(
        row_numbers(item_ids, times["item_id"]),
        to_seconds(times["event_time"]),
        start.timestamp(),
        window_days=min(rule.window_days, RECENT_DAYS),
        items=len(item_ids),
    )
    lists = {
        ModelName.contextual: search(
            user_embeddings[row_numbers(users, asked)], item_embeddings, depth, exclude=exclude
        ),
        ModelName.recent_popularity: popularity_lists(recent, len(asked), depth, exclude),
    }
    ever = _events_of_items(times["item_id"], item_ids)
    rows = []
    for model, ranked in lists.items():
        metrics = evaluate(ranked, wanted, len(item_ids), ks=usable, popularity=ever)
        kept = [*(f"recall@{k}" for k in usable), "diversity90", "never_engaged@100"]
        figures = metrics.figures()
        rows += [(model.value, len(asked), len(positives), metric, figures[metric]) for metric in kept]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA = {
    "model": pl.String(),
    "users": pl.Int64(),
    "positives": pl.Int64(),
    "metric": pl.String(),
    "value": pl.Float64(),
}


def _seen(history: pl.DataFrame, asked: pl.Series, item_ids: pl.Series) -> Ragged:
    mine = history.unique().filter(pl.col("user_id").is_in(asked.implode()))
    item = row_numbers(item_ids, mine["item_id"])
    user = row_numbers(asked, mine["user_id"])
    return Ragged.from_pairs(user[item >= 0], item[item >= 0], len(asked))


def _events_of_items(engaged: pl.Series, item_ids: pl.Series) -> NDArray[np.int64]:
    """Return how many events each item has [items]."""
    item = row_numbers(item_ids, engaged)
    return np.bincount(item[item >= 0], minlength=len(item_ids))


def _nothing(users: int, positives: int) -> pl.DataFrame:
    row = (ModelName.contextual.value, users, positives, "recall@100", None)
    return pl.DataFrame([row], schema=SCHEMA, orient="row")

"""Recall of yesterday's states and item embeddings, and of yesterday's popularity, on a day's conversions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.baselines import popularity_lists
from ml.evaluation.metrics import DIVERSITY_DEPTH, evaluate, usable_ks
from ml.evaluation.model_names import ModelName
from ml.examples.pairs import LabelRule
from ml.features.event_log import row_numbers
from ml.retrieval.lists import Ragged, search

RECENT_DAYS = 28.0


@dataclass(frozen=True)
class Asked:
    """The users of a day whose conversions are to be found."""

    users: pl.Series  # sorted
    positives: pl.DataFrame  # user_id, item_id, each pair once


def who_is_asked(converted: pl.DataFrame, history: pl.DataFrame | None, *, maximum_users: int, seed: int) -> Asked:
    """Return the users with a conversion of an item that counts.

    Args:
        converted: user_id, item_id of the day's conversions, each pair once.
        history: the pairs of these users from before the day, each once, which do not count; None where repeats count.
        maximum_users: if more users convert, a sample of so many.
    """
    positives = converted if history is None else converted.join(history, on=["user_id", "item_id"], how="anti")
    users = positives["user_id"].unique().sort()
    if len(users) > maximum_users:
        users = users.sample(maximum_users, seed=seed).sort()
        positives = positives.filter(pl.col("user_id").is_in(users.implode()))
    return Asked(users, positives)


def recent_from(rule: LabelRule, start: datetime) -> datetime:
    """Return the instant from which events count as recent at the beginning ``start`` of a day."""
    return start - timedelta(days=min(rule.window_days, RECENT_DAYS))


def measure_day(
    asked: Asked,
    history: pl.DataFrame | None,
    engaged: pl.DataFrame,
    *,
    user_embeddings: NDArray[np.float32],
    item_ids: pl.Series,
    item_embeddings: NDArray[np.float32],
    ks: list[int],
) -> pl.DataFrame:
    """Measure recall and diversity of the served model and of recent popularity on a day's positives.

    Args:
        history: the pairs of user_id and item_id that are not proposed; None where repeats count.
        engaged: item_id, events and recent: how many events each item has from before the day, and how many are recent.
        user_embeddings: of the asked users as of yesterday [users, W].
        item_ids: of yesterday's index (sorted), and their embeddings [items, W].

    Returns:
        model, users, positives, metric, value; value null where nobody with a state converted.
    """
    users, positives = asked.users, asked.positives
    usable = usable_ks(ks, len(item_ids))
    depth = min(max([DIVERSITY_DEPTH, *usable]), len(item_ids))
    if not len(users) or not depth:
        return _nothing(len(users), len(positives))
    wanted = Ragged.from_pairs(
        row_numbers(users, positives["user_id"]), row_numbers(item_ids, positives["item_id"]), len(users)
    )
    exclude = None if history is None else _seen(history, users, item_ids)
    counts = item_ids.alias("item_id").to_frame().join(engaged, on="item_id", how="left", maintain_order="left")
    ever, recent = (counts[name].fill_null(0).to_numpy() for name in ("events", "recent"))
    lists = {
        ModelName.contextual: search(user_embeddings, item_embeddings, depth, exclude=exclude),
        ModelName.recent_popularity: popularity_lists(recent.astype(np.float32), len(users), depth, exclude),
    }
    rows = []
    for model, ranked in lists.items():
        metrics = evaluate(ranked, wanted, len(item_ids), ks=usable, popularity=ever.astype(np.int64))
        kept = [*(f"recall@{k}" for k in usable), "diversity90", "never_engaged@100"]
        figures = metrics.figures()
        rows += [(model.value, len(users), len(positives), metric, figures[metric]) for metric in kept]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA = {
    "model": pl.String(),
    "users": pl.Int64(),
    "positives": pl.Int64(),
    "metric": pl.String(),
    "value": pl.Float64(),
}


def _seen(history: pl.DataFrame, asked: pl.Series, item_ids: pl.Series) -> Ragged:
    mine = history.filter(pl.col("user_id").is_in(asked.implode()))
    item = row_numbers(item_ids, mine["item_id"])
    user = row_numbers(asked, mine["user_id"])
    return Ragged.from_pairs(user[item >= 0], item[item >= 0], len(asked))


def _nothing(users: int, positives: int) -> pl.DataFrame:
    row = (ModelName.contextual.value, users, positives, "recall@100", None)
    return pl.DataFrame([row], schema=SCHEMA, orient="row")

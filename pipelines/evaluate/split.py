"""A fixed split: its files, what may be learnt from it, what it asks, and how its answers are written.

The split's own files are the only events that are read; items take their attributes from a landing zone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.queries import EvaluationSet, Queries, positions
from ml.examples.context import no_context, subject_context
from ml.examples.pairs import LabelRule
from ml.examples.period import TrainingPeriod
from ml.features.dataset import Dataset
from ml.features.event_log import build_event_log, row_numbers
from ml.features.items import MAXIMUM_INTERESTS
from ml.retrieval.lists import Ragged, RankedLists
from pipelines.cli.errors import RunRefused
from settings import Settings
from warehouse.as_of import landed_items
from warehouse.landing import Landing

FILES = ("train", "queries", "history", "targets", "catalogue")
ITEM_COLUMNS = ["item_id", "advertiser_id", "title", "category", "price", "interests", "embedding", "available_from"]
USER_SCHEMA = {"user_id": pl.String(), "age": pl.Int32(), "gender": pl.String(), "country": pl.String()}


@dataclass(frozen=True)
class Split:
    """A fixed split; ids are text, whatever type the files have."""

    name: str
    train: pl.DataFrame  # user_id, item_id, ts, ord
    queries: pl.DataFrame  # query_id, user_id, context_item
    history: pl.DataFrame  # query_id, item_id, ord
    targets: pl.DataFrame  # query_id, item_id
    catalogue: pl.DataFrame  # item_id, warm, brand
    end: float  # seconds; the training period ends here
    window_days: float

    @classmethod
    def read(cls, directory: Path) -> Split:
        """Read the split's files.

        Raises:
            RunRefused: a file is missing.
        """
        missing = [name for name in FILES if not (directory / f"{name}.parquet").is_file()]
        if missing or not (directory / "meta.json").is_file():
            raise RunRefused(
                f"{directory} is not a split: {', '.join(f'{name}.parquet' for name in missing) or 'meta.json'} missing"
                ". `adseq split LANDING --out DIR` makes one."
            )
        frames = {name: _text_ids(pl.read_parquet(directory / f"{name}.parquet", glob=False)) for name in FILES}
        meta = json.loads((directory / "meta.json").read_text())
        if not meta["cutoff"]:
            raise RunRefused(
                f"{directory}: this split has no cut-off (leave-one-out), and `adseq evaluate` trains until the "
                "cut-off. Make a split with `adseq split`."
            )
        return cls(
            name=directory.name,
            end=datetime.fromisoformat(meta["cutoff"]).replace(tzinfo=UTC).timestamp(),
            window_days=float(meta["window_days"]),
            **frames,
        )


def training_period(split: Split, landing: Landing, settings: Settings) -> TrainingPeriod:
    """Return the split's training events, all of them positives, and the attributes of its items.

    The feed lists the split's catalogue: an item is listed from its ``available_from`` on, and always where the landing
    zone gives no such time.

    Raises:
        RunRefused: the landing zone is empty.
    """
    if not landing.dates():
        raise RunRefused(
            f"{landing.root} has no landed day, and therefore no items. Set --landing to the landing zone of an import."
        )
    positive = landing.manifest.positive_events[0]
    given = landed_items(landing, settings.data).select(*ITEM_COLUMNS, listed_from="available_from")
    ids = pl.concat([split.catalogue["item_id"], split.train["item_id"]]).unique()
    items = ids.to_frame().join(given, on="item_id", how="left").sort("item_id")
    events = _events(split.train.sort("user_id", "ord"), items, positive).with_columns(event_time=_time(pl.col("ts")))
    return TrainingPeriod(
        events=events.select("user_id", "event_time", "event_name", "item_id", "advertiser_id"),
        items=items,
        users=pl.DataFrame(schema=USER_SCHEMA),
        end=split.end,
        rule=LabelRule((positive,), split.window_days, repeats_count=False, weights=settings.examples.label_weights),
        event_names=[positive],
    )


def split_asked(split: Split, period: TrainingPeriod, known: Dataset, settings: Settings) -> EvaluationSet:
    """Return the split's queries with their histories as a separate log, in which each query is one user."""
    ids = known.features.item_ids
    query_ids = split.queries["query_id"]
    history = split.history.with_columns(user_id=pl.Series(row_numbers(query_ids, split.history["query_id"])))
    # History after the training period has an order but no time: it counts as happening at the end of the period.
    times = split.train.select("ord", "ts")
    history = history.sort("user_id", "ord").join(times, on="ord", how="left", maintain_order="left")
    history = history.with_columns(
        event_time=_time(pl.col("ts").fill_null(split.end)), user_id=pl.col("user_id").cast(pl.String)
    )
    features = settings.features
    log = build_event_log(
        _events(history, period.items, period.event_names[0]),
        ids,
        period.event_names,
        advertiser_buckets=features.advertiser_buckets,
        advertiser_hashes=features.advertiser_hashes,
    )
    user = row_numbers(log.user_ids, pl.Series(np.arange(len(query_ids))).cast(pl.String))
    candidates = np.sort(row_numbers(ids, split.catalogue["item_id"]))
    position = positions(candidates, len(ids))
    subject = row_numbers(ids, split.queries["context_item"])
    with_subject = np.flatnonzero(subject >= 0)
    exclude = (
        np.concatenate([row_numbers(query_ids, split.history["query_id"]), with_subject]),
        np.concatenate([position[row_numbers(ids, split.history["item_id"])], position[subject[with_subject]]]),
    )
    target = position[row_numbers(ids, split.targets["item_id"])]
    has_context = bool(len(with_subject))
    queries = Queries(
        user=user,
        history_end=np.where(user >= 0, log.offsets[np.maximum(user, 0) + 1], 0),
        context=subject_context(subject, known.features) if has_context else no_context(len(user), MAXIMUM_INTERESTS),
        positives=Ragged.from_pairs(row_numbers(query_ids, split.targets["query_id"]), target, len(query_ids)),
        exclude=_pairs_within(*exclude, len(query_ids)),
        candidates=candidates,
        as_of=split.end,
    )
    dataset = replace(known, log=log, demographics=np.zeros((log.users, 3), np.int64))
    return EvaluationSet(dataset, queries, known.log, period.rule.window_days)


def export_lists(split: Split, asked: EvaluationSet, lists: RankedLists, path: Path) -> int:
    """Write query_id, rank (1 = best), item_id; returns the number of rows."""
    query, rank = np.nonzero(lists.items >= 0)
    items = asked.dataset.features.item_ids.gather(asked.queries.candidates[lists.items[query, rank]])
    frame = pl.DataFrame({"query_id": split.queries["query_id"].gather(query), "rank": rank + 1, "item_id": items})
    write_whole(frame, path)
    return len(frame)


def write_whole(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file, which is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    frame.write_parquet(temporary)
    temporary.replace(path)


def _events(rows: pl.DataFrame, items: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return rows as events of one name, with the advertiser of each item."""
    advertisers = items.select("item_id", "advertiser_id")
    return rows.join(advertisers, on="item_id", how="left", maintain_order="left").with_columns(event_name=pl.lit(name))


def _pairs_within(query: NDArray[np.int64], item: NDArray[np.int64], queries: int) -> Ragged:
    return Ragged.from_pairs(query[item >= 0], item[item >= 0], queries)


def _text_ids(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with ids as text; a float id (a nullable integer column of pandas) loses its ``.0``."""

    def text(name: str) -> pl.Expr:
        column = pl.col(name)
        return (column.cast(pl.Int64) if frame.schema[name].is_float() else column).cast(pl.String)

    ids = [name for name in ("query_id", "user_id", "item_id", "context_item") if name in frame.columns]
    return frame.with_columns(text(name) for name in ids)


def _time(seconds: pl.Expr) -> pl.Expr:
    return (seconds.cast(pl.Float64) * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))

"""Small typed worlds for the tests of ml/: hand-written logs, and one with a pattern that a model can learn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from ml.examples.pairs import LabelRule
from ml.examples.period import TrainingPeriod
from ml.features.event_log import EventLog, build_event_log
from ml.features.items import DAY
from ml.models.encoders import EventBatch
from settings import Settings

EVENT_NAMES = ["page_visit", "add_to_cart", "checkout"]
START = datetime(2024, 1, 1, tzinfo=UTC)
EVENT_SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "event_time": pl.Datetime("us", "UTC"),
        "event_name": pl.String(),
        "item_id": pl.String(),
        "advertiser_id": pl.String(),
    }
)

Event = tuple[str, float, str, str | None]  # user, day, event name, item


def instant(day: float) -> float:
    """Seconds since 1970 of a day of the tests, whose days are counted from ``START``."""
    return START.timestamp() + day * DAY


def event_frame(rows: list[Event]) -> pl.DataFrame:
    """Events sorted by user, then time; equal times keep the order in which they are written."""
    ordered = sorted(rows, key=lambda row: (row[0], row[1]))
    return pl.DataFrame(
        [(user, START + timedelta(days=day), name, item, item and f"of {item}") for user, day, name, item in ordered],
        schema=EVENT_SCHEMA,
        orient="row",
    )


def item_frame(item_ids: list[str], **columns: Any) -> pl.DataFrame:
    """A catalogue; columns that are not given are null."""
    types: dict[str, pl.DataType] = {
        "item_id": pl.String(),
        "advertiser_id": pl.String(),
        "title": pl.String(),
        "category": pl.String(),
        "price": pl.Float64(),
        "interests": pl.List(pl.Struct({"interest": pl.String, "confidence": pl.Float64})),
        "embedding": pl.List(pl.Float32),
        "available_from": pl.Datetime("us", "UTC"),
        "listed_from": pl.Datetime("us", "UTC"),
    }
    values: dict[str, Any] = {"item_id": item_ids} | columns
    missing = [None] * len(item_ids)
    return pl.DataFrame([pl.Series(name, values.get(name, missing), dtype=kind) for name, kind in types.items()])


def user_frame(user_ids: list[str]) -> pl.DataFrame:
    """Users of whom only the country is known."""
    return pl.DataFrame(
        {"user_id": user_ids, "age": None, "gender": None, "country": "DE"},
        schema={"user_id": pl.String, "age": pl.Int64, "gender": pl.String, "country": pl.String},
    )


def event_log(rows: list[Event], item_ids: list[str]) -> EventLog:
    return build_event_log(
        event_frame(rows), pl.Series(item_ids, dtype=pl.String), EVENT_NAMES, advertiser_buckets=64, advertiser_hashes=2
    )


def rule(window_days: float = 10.0, repeats_count: bool = True, **weights: float) -> LabelRule:
    return LabelRule(("checkout", "add_to_cart"), window_days, repeats_count, weights)


def small_settings(**groups: dict[str, Any]) -> Settings:
    """Settings of a model that trains in a second; ``groups`` override fields by group."""
    base: dict[str, dict[str, Any]] = {
        "features": {"content_dimensions": 8, "category_buckets": 128, "advertiser_buckets": 128},
        "sequences": {"length": 12},
        "examples": {"cutoffs": 4},
        "model": {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0},
        "training": {"batch_size": 128, "corpus_negatives": 64, "learning_rate": 1e-2, "epochs": 4},
    }
    return Settings.model_validate({name: base.get(name, {}) | groups.get(name, {}) for name in base | groups})


def planted_period(
    users: int = 240, items: int = 240, kinds: int = 12, days: int = 100, events_per_user: int = 12, seed: int = 0
) -> TrainingPeriod:
    """Every user keeps to one kind of items, whose first few are the most popular: histories tell what comes next, and
    popularity tells little of it."""
    random = np.random.default_rng(seed)
    size = items // kinds
    item_ids = [f"i{number:03d}" for number in range(items)]
    chance = 1.0 / np.arange(1, size + 1)
    rows: list[Event] = []
    for user in range(users):
        kind = user % kinds
        drawn = kind * size + random.choice(size, events_per_user, p=chance / chance.sum())
        names = random.choice(EVENT_NAMES, events_per_user, p=[0.4, 0.2, 0.4])
        times: NDArray[np.float64] = np.sort(random.uniform(0, days, events_per_user))
        rows += [
            (f"u{user:03d}", float(day), str(name), item_ids[item])
            for day, name, item in zip(times, names, drawn, strict=True)
        ]
    return TrainingPeriod(
        events=event_frame(rows),
        items=item_frame(
            item_ids,
            advertiser_id=[f"a{number // size}" for number in range(items)],
            category=[f"All > K{number // size}" for number in range(items)],
            price=random.uniform(1, 100, items).tolist(),
        ),
        users=user_frame([f"u{user:03d}" for user in range(users)]),
        end=instant(days),
        rule=rule(15.0),
        event_names=EVENT_NAMES,
    )


def newest_content(events: EventBatch) -> Tensor:
    """The content of the newest event of each sequence, none of which is empty."""
    return events.content[events.distinct_item[events.lengths.cumsum(0) - 1]]

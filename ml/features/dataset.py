"""Everything that a model learns from, derived only from events before one instant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.content import ContentBasis, build_content_basis
from ml.features.event_log import EventLog, build_event_log, row_numbers
from ml.features.hashing import NONE, bucket, hash_column
from ml.features.items import ItemFeatures, ItemStatistics, build_item_features, catalogue_statistics
from settings import FeatureSettings

AGE_DECADE = 10
DEMOGRAPHIC_BUCKETS = 256


@dataclass(frozen=True)
class Dataset:
    """One log under one content basis. Catalogue rows are those of ``features.item_ids``."""

    features: ItemFeatures
    basis: ContentBasis
    log: EventLog
    statistics: ItemStatistics
    demographics: NDArray[np.int64]  # [users of the log, 3] buckets
    event_names: list[str]

    def users_demographics(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the buckets [users, 3] of rows of the log; zero for -1 (unknown)."""
        return np.where((users >= 0)[:, None], self.demographics[np.maximum(users, 0)], 0)


def build_dataset(
    events: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    *,
    settings: FeatureSettings,
    event_names: list[str],
    basis: ContentBasis | None = None,
    seed: int = 0,
) -> Dataset:
    """Derive features, statistics and, where no ``basis`` is given, the content basis from ``events``.

    Args:
        events: user_id, event_time, event_name, item_id, advertiser_id; sorted by user, then time. Onsite events are in
            the log, and nothing counts them.
        items: the catalogue (item_id unique). users: user_id, age, gender, country.
    """
    items = items.sort("item_id")
    log = build_event_log(
        events,
        items["item_id"],
        event_names,
        advertiser_buckets=settings.advertiser_buckets,
        advertiser_hashes=settings.advertiser_hashes,
    )
    counted = log.offsite
    basis = basis or build_content_basis(items, counted, settings, seed)
    return Dataset(
        features=build_item_features(items, basis, settings),
        basis=basis,
        log=log,
        statistics=catalogue_statistics(
            items, counted.item, counted.seconds, windows_days=settings.statistics_windows_days
        ),
        demographics=demographic_buckets(users, log.user_ids),
        event_names=event_names,
    )


def demographic_buckets(users: pl.DataFrame, user_ids: pl.Series) -> NDArray[np.int64]:
    """Return the buckets [user_ids, 3] of age decade, gender and country; 0 where the value is unknown."""
    row = row_numbers(users["user_id"], user_ids)
    columns = [
        "age" + (users["age"].cast(pl.Int64) // AGE_DECADE).cast(pl.String),
        "gender" + users["gender"].cast(pl.String),
        "country" + users["country"].cast(pl.String),
    ]
    if not len(users):
        return np.zeros((len(user_ids), len(columns)), np.int64)
    buckets = np.concatenate([hash_column(column, DEMOGRAPHIC_BUCKETS) for column in columns], axis=1)
    return np.where((row >= 0)[:, None], buckets[np.maximum(row, 0)], 0)


def demographic_buckets_of(age: int | None, gender: str | None, country: str | None) -> NDArray[np.int64]:
    """Return the buckets [3] of one person, as ``demographic_buckets`` does for many: a request waits for them.

    >>> demographic_buckets_of(None, None, None).tolist()
    [0, 0, 0]
    """
    names = {"age": None if age is None else age // AGE_DECADE, "gender": gender, "country": country}
    hashed = [
        NONE if value is None else bucket(f"{name}{value}", DEMOGRAPHIC_BUCKETS, 0) for name, value in names.items()
    ]
    return np.array(hashed, np.int64)

"""Advertisers as of an instant: catalogue by category, price level, size, content centroid, trailing counts, hashed id.

Only data from before the instant is read: items that were listed by then, and events that had happened by then. The
content basis is frozen with the model version, so a centroid changes with the catalogue and never with later
engagement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.features.event_log import row_numbers, to_seconds
from ml.features.hashing import hash_column
from ml.features.items import ItemFeatures, ItemStatistics, build_item_statistics, is_listed
from settings import UNKNOWN_ADVERTISER, FeatureSettings

PRICE_COLUMNS = 3


@dataclass(frozen=True)
class Profiles:
    """Advertisers as of an instant, one row each."""

    hashes: NDArray[np.int64]  # [advertisers, hashes] buckets of the id
    category: sp.csr_array  # [advertisers, category buckets] share of its items that lie below the node
    price: NDArray[
        np.float32
    ]  # [advertisers, 3] mean and deviation of standardised log price, and whether any is known
    size: NDArray[np.float32]  # [advertisers, 1] log(1 + items)
    content: NDArray[np.float32]  # [advertisers, content] mean of its items; shorter the more they differ
    statistics: NDArray[np.float32]  # [advertisers, statistics]

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, rows: NDArray[np.int64]) -> Profiles:
        return Profiles(
            self.hashes[rows],
            self.category[rows],
            self.price[rows],
            self.size[rows],
            self.content[rows],
            self.statistics[rows],
        )


@dataclass(frozen=True)
class Advertisers:
    """All advertisers, from which their profiles as of any instant follow."""

    advertiser_ids: pl.Series  # [advertisers], sorted text
    hashes: NDArray[np.int64]  # [advertisers, hashes]
    of_item: NDArray[np.int64]  # [items] row of the item's advertiser, -1 = none
    items: ItemFeatures
    item_listed_from: NDArray[np.float64]  # [items] seconds, see ``ml.features.items.is_listed``
    statistics: ItemStatistics  # of advertisers: from all their events, those without an item included
    category_buckets: int

    def __len__(self) -> int:
        return len(self.advertiser_ids)

    def under(self, content: NDArray[np.float32]) -> Advertisers:
        """Return the same advertisers, with other content [items, content] of their items."""
        return replace(self, items=replace(self.items, content=content))

    def known(self, seconds: float) -> NDArray[np.int64]:
        """Return the rows of advertisers with an event before ``seconds`` or an item listed by then, ascending."""
        return np.flatnonzero(self.statistics.listed(seconds))

    def at(self, seconds: float) -> Profiles:
        """Return the profiles as of ``seconds`` (exclusive)."""
        listed = np.flatnonzero((self.of_item >= 0) & is_listed(self.item_listed_from, seconds))
        owner = self.of_item[listed]
        size = np.bincount(owner, minlength=len(self))
        ones = np.ones(len(listed), np.float32)
        mean = sp.csr_array(
            (ones / np.maximum(size, 1)[owner], (owner, np.arange(len(listed)))), (len(self), len(listed))
        )
        return Profiles(
            hashes=self.hashes,
            category=sp.csr_array(mean @ self._nodes(listed)),
            price=_price_level(self.items.price[listed], owner, len(self)),
            size=np.log1p(size)[:, None].astype(np.float32),
            content=np.asarray(mean @ self.items.content[listed], np.float32),
            statistics=self.statistics.at(seconds),
        )

    def _nodes(self, items: NDArray[np.int64]) -> sp.csr_array:
        """Return the nodes of the category tree that each item lies below, as ones [items, category buckets]."""
        category = self.items.category[items]
        row, level = np.nonzero(category)
        ones = np.ones(len(row), np.float32)
        return sp.csr_array((ones, (row, category[row, level])), (len(items), self.category_buckets))


def advertiser_ids(events: pl.DataFrame, items: pl.DataFrame) -> pl.Series:
    """Return every advertiser that an event or an item names, sorted."""
    both = pl.concat([events["advertiser_id"], items["advertiser_id"]]).drop_nulls().unique().sort()
    return both.filter(both != UNKNOWN_ADVERTISER)


def build_advertisers(
    features: ItemFeatures, events: pl.DataFrame, items: pl.DataFrame, *, ids: pl.Series, settings: FeatureSettings
) -> Advertisers:
    """Build the advertisers ``ids`` (from ``advertiser_ids``) from their items and their events.

    Args:
        features: of ``items``, which are the catalogue. events: item_id, advertiser_id, event_time, in any order;
            and ``events`` where a row stands for several, as in ``build_item_statistics``.
    """
    of_item = row_numbers(ids, items.sort("item_id")["advertiser_id"])
    item, seconds = row_numbers(features.item_ids, events["item_id"]), to_seconds(events["event_time"])
    windows = settings.statistics_windows_days
    item_listed_from = build_item_statistics(item, seconds, features.listed_from, windows_days=windows).listed_from
    listed = np.full(len(ids), np.inf)
    np.minimum.at(listed, of_item[of_item >= 0], item_listed_from[of_item >= 0])
    row = advertiser_of_event(events["advertiser_id"], item, of_item, ids)
    together = events["events"].to_numpy() if "events" in events.columns else None
    return Advertisers(
        advertiser_ids=ids,
        hashes=hash_column(ids, settings.advertiser_buckets, settings.advertiser_hashes),
        of_item=of_item,
        items=features,
        item_listed_from=item_listed_from,
        statistics=build_item_statistics(row, seconds, listed, windows_days=windows, events=together),
        category_buckets=settings.category_buckets,
    )


def advertiser_of_event(
    named: pl.Series, item: NDArray[np.int64], of_item: NDArray[np.int64], ids: pl.Series
) -> NDArray[np.int64]:
    """Return the row of each event's advertiser.

    The advertiser is the one that the event names, else the one of the event's item; -1 where there is neither.

    Args:
        named: advertiser_id of the events, which may be null. item: their catalogue rows, -1 = none.
        of_item: [items] rows of the items' advertisers. ids: all advertisers, sorted.
    """
    row = row_numbers(ids, named)
    if not len(of_item):
        return row
    return np.where((row < 0) & (item >= 0), of_item[np.maximum(item, 0)], row)


def _price_level(price: NDArray[np.float32], owner: NDArray[np.int64], advertisers: int) -> NDArray[np.float32]:
    """Return mean and deviation of each advertiser's known standardised log prices, and whether any is known."""
    known = price[:, 1] > 0
    owner, value = owner[known], price[known, 0].astype(np.float64)
    count = np.bincount(owner, minlength=advertisers)
    mean = np.bincount(owner, value, advertisers) / np.maximum(count, 1)
    variance = np.bincount(owner, (value - mean[owner]) ** 2, advertisers) / np.maximum(count, 1)
    return np.column_stack([mean, np.sqrt(variance), count > 0]).astype(np.float32)

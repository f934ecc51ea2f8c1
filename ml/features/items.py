"""Item features of both towers: what an item is (content, category, interests, advertiser, price) and, as of an
instant, how it has been doing (trailing counts, age). There are no item ids: a new item works at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.content import ContentBasis, category_nodes
from ml.features.event_log import to_seconds
from ml.features.hashing import NONE, hash_column, known_advertisers
from settings import FeatureSettings

CATEGORY_LEVELS = 4
MAXIMUM_INTERESTS = 4
DAY = 86_400.0


@dataclass(frozen=True)
class ItemFeatures:
    """Static features, one row an item; rows are sorted by item id."""

    item_ids: pl.Series  # [items], text
    content: NDArray[np.float32]  # [items, content] unit length, or zero where nothing is known
    cold_content: NDArray[np.float32]  # [items, content] what the item would get if it were new
    category: NDArray[np.int64]  # [items, CATEGORY_LEVELS] buckets of the path's nodes, root first
    interests: NDArray[np.int64]  # [items, MAXIMUM_INTERESTS] buckets, most confident first
    confidence: NDArray[np.float32]  # [items, MAXIMUM_INTERESTS]
    advertiser: NDArray[np.int64]  # [items, hashes] buckets
    price: NDArray[np.float32]  # [items, 2] standardised log price, and whether it is known
    listed_from: NDArray[np.float64]  # [items] seconds since 1970 UTC, see ``is_listed``; -inf = always

    def __len__(self) -> int:
        return len(self.content)

    def to_frame(self, statistics: NDArray[np.float32]) -> pl.DataFrame:
        """One row an item with list columns, as the warehouse keeps it; ``statistics`` [items, width] beside it."""
        columns: dict[str, NDArray[Any]] = {
            "content": self.content,
            "category": self.category,
            "interests": self.interests,
            "confidence": self.confidence,
            "advertiser": self.advertiser,
            "price": self.price,
            "statistics": statistics,
        }
        lists = [
            pl.Series(name, values).cast(pl.List(pl.Series(values[:1, 0]).dtype)) for name, values in columns.items()
        ]
        return pl.DataFrame([self.item_ids.alias("item_id"), *lists, pl.Series("listed_from", self.listed_from)])

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> tuple[ItemFeatures, NDArray[np.float32]]:
        """The inverse of ``to_frame``: features and statistics. Cold content is not kept: only training needs it."""
        matrices = {
            name: np.ascontiguousarray(frame[name].explode().to_numpy().reshape(len(frame), -1))
            for name in ("content", "category", "interests", "confidence", "advertiser", "price", "statistics")
        }
        statistics = matrices.pop("statistics")
        features = cls(
            item_ids=frame["item_id"],
            cold_content=np.zeros_like(matrices["content"]),
            listed_from=frame["listed_from"].to_numpy(),
            **matrices,
        )
        return features, statistics


def build_item_features(items: pl.DataFrame, basis: ContentBasis, settings: FeatureSettings) -> ItemFeatures:
    """Features of a catalogue under a frozen content basis.

    Args:
        items: item_id (unique, sorted), advertiser_id, category, price, interests, embedding, listed_from.
        basis: content of the items that were known in training, and the means from which new items get theirs.
    """
    content, cold_content = basis.content_of(items)
    interests, confidence = _interests(items, settings.category_buckets)
    return ItemFeatures(
        item_ids=items["item_id"],
        content=content,
        cold_content=cold_content,
        category=_category(items["category"], settings.category_buckets),
        interests=interests,
        confidence=confidence,
        advertiser=hash_column(
            known_advertisers(items["advertiser_id"]), settings.advertiser_buckets, settings.advertiser_hashes
        ),
        price=_price(items["price"], basis),
        listed_from=to_seconds(items["listed_from"]),
    )


def _category(category: pl.Series, buckets: int) -> NDArray[np.int64]:
    nodes = category_nodes(category)
    levels = [nodes.list.get(level, null_on_oob=True) for level in range(CATEGORY_LEVELS)]
    return np.concatenate([hash_column(level, buckets) for level in levels], axis=1)


def _interests(items: pl.DataFrame, buckets: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Given interests, else the nodes of the category path: the leaf with confidence 1, a parent half of its child."""
    nodes = category_nodes(items["category"])
    derived = (
        pl.DataFrame({"row": np.arange(len(items)), "interest": nodes.list.reverse()})
        .explode("interest")
        .drop_nulls("interest")
        .with_columns(confidence=0.5 ** pl.int_range(pl.len()).over("row"))
    )
    given = (
        items.select(row=pl.int_range(pl.len()), given="interests")
        .explode("given")
        .drop_nulls("given")
        .select("row", pl.col("given").struct.field("interest"), pl.col("given").struct.field("confidence"))
    )
    both = pl.concat([given, derived.join(given, on="row", how="anti").select(given.columns)], how="vertical_relaxed")
    ranked = both.sort("row", "confidence", "interest", descending=[False, True, False]).with_columns(
        rank=pl.int_range(pl.len()).over("row")
    )
    kept = ranked.filter(pl.col("rank") < MAXIMUM_INTERESTS)
    ids = np.full((len(items), MAXIMUM_INTERESTS), NONE, np.int64)
    confidence = np.zeros((len(items), MAXIMUM_INTERESTS), np.float32)
    row, rank = kept["row"].to_numpy(), kept["rank"].to_numpy()
    ids[row, rank] = hash_column(kept["interest"], buckets)[:, 0]
    confidence[row, rank] = kept["confidence"].to_numpy()
    return ids, confidence


def _price(price: pl.Series, basis: ContentBasis) -> NDArray[np.float32]:
    known = price.is_not_null().to_numpy()
    logarithm = np.log1p(price.fill_null(0.0).to_numpy())
    standard = (logarithm - basis.price_mean) / basis.price_deviation
    return np.stack([np.where(known, standard, 0.0), known], axis=1).astype(np.float32)


def is_listed(listed_from: NDArray[np.float64], seconds: float) -> NDArray[np.bool_]:
    """Return which items are listed as of ``seconds`` (exclusive) [items].

    This is the one rule of who may be a negative, a candidate or a neighbour: the feed lists the item before the
    instant, or the log has shown it before the instant. No later event takes part, so a corpus doesn't tell which
    items sell for the first time after it.

    Args:
        listed_from: [items] seconds since 1970 UTC from which the feed lists the item or the log shows it; -inf =
            always, inf = never.
    """
    return listed_from < seconds


@dataclass(frozen=True)
class ItemStatistics:
    """Trailing counts and age of every item as of any instant, and of its advertiser and its category, from events in
    time order.

    Only events before the instant are read, so nothing of a label window can leak in.
    """

    item: NDArray[np.int64]  # [events] catalogue row, in time order
    seconds: NDArray[np.float64]  # [events] ascending
    feed_from: NDArray[np.float64]  # [items] seconds from which the feed lists each; -inf = always
    born: NDArray[np.float64]  # [items] seconds: what the age counts from; -inf = unknown, see ``_since``
    first_event: NDArray[np.float64]  # [items] seconds; inf = no event
    windows_days: tuple[float, ...]
    groups: tuple[NDArray[np.int64], ...] = ()  # a kind of group: the group of each item, -1 = unknown [items]

    @property
    def width(self) -> int:
        """Columns of ``at``."""
        return (1 + len(self.groups)) * (len(self.windows_days) + 1) + 2

    @property
    def listed_from(self) -> NDArray[np.float64]:
        """From when on the feed lists each item or the log shows it [items], for ``is_listed``."""
        return np.minimum(self.feed_from, self.first_event)

    def listed(self, seconds: float) -> NDArray[np.bool_]:
        """Return which items are listed as of ``seconds`` (``is_listed``) [items]."""
        return is_listed(self.listed_from, seconds)

    def listed_in_window(self, seconds: float, end: float) -> NDArray[np.bool_]:
        """Return which items are listed as of ``seconds``, or by the feed before ``end`` [items].

        These are the items of a label window: who can become a positive in it, whether or not somebody buys the item.
        """
        return self.listed(seconds) | is_listed(self.feed_from, end)

    def at(self, seconds: float) -> NDArray[np.float32]:
        """Features [items, width] as of ``seconds`` (exclusive).

        log(1 + count) a window, then all time; the log age in days / 4; 1 for an item with any event; and for each kind
        of group log(1 + the group's counts / root of its listed items): between the total, which says how large a
        group is, and the mean, which says how its items do.
        """
        items = len(self.feed_from)
        end = int(np.searchsorted(self.seconds, seconds))
        starts = [int(np.searchsorted(self.seconds, seconds - days * DAY)) for days in self.windows_days] + [0]
        counts = np.zeros((items, len(starts)))
        # Windows nest, so each event is counted once: in the slice between two starts, then summed outwards.
        total = np.zeros(items)
        for column in np.argsort(starts)[::-1]:
            total += np.bincount(self.item[starts[column] : end], minlength=items)
            counts[:, column] = total
            end = starts[column]
        age = np.log1p(np.maximum(seconds - self._since(seconds), 0) / DAY)
        seen = counts[:, -1] > 0
        listed = self.listed(seconds)
        grouped = []
        for group in self.groups:
            size = np.bincount(group + 1, listed)[:, None]
            together = np.log1p(_sums(counts, group + 1) / np.sqrt(np.maximum(size, 1)))
            together[0] = 0  # of the items whose group is unknown
            grouped.append(together[group + 1])
        return np.column_stack([np.log1p(counts), age / 4, seen, *grouped]).astype(np.float32)

    def _since(self, seconds: float) -> NDArray[np.float64]:
        """Return what the age of each item counts from [items], as known at ``seconds``.

        That is the item's ``available_from``, else its arrival, or its first event where that is earlier. Of an item
        that has been listed always, without a date, it is the first event; an item without an event then has been
        unsold for as long as the log goes back, which is not the same as new.
        """
        begin = self.seconds[0] if len(self.seconds) else seconds
        shown = np.where(self.first_event < seconds, self.first_event, begin)
        return np.where(np.isneginf(self.born), shown, self.born)


def _sums(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums by group of each column: [items, columns] -> [groups, columns]."""
    return np.column_stack([np.bincount(group, weights=column) for column in values.T])


def item_groups(items: pl.DataFrame) -> tuple[NDArray[np.int64], ...]:
    """The advertiser and the category of each item as dense numbers from 0; -1 where it is unknown."""
    return tuple(
        (column.rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy()
        for column in (known_advertisers(items["advertiser_id"]), items["category"])
    )


def build_item_statistics(
    item: NDArray[np.int64],
    seconds: NDArray[np.float64],
    listed_from: NDArray[np.float64],
    *,
    windows_days: list[float],
    groups: tuple[NDArray[np.int64], ...] = (),
    born: NDArray[np.float64] | None = None,
) -> ItemStatistics:
    """Statistics from events in any order; ``item`` -1 (no item) is left out.

    Args:
        item, seconds: [events]. listed_from: [items] seconds from which the feed lists each; -inf = always, inf =
            never.
        born: [items] seconds that the age counts from, where it isn't ``listed_from``.
    """
    known = item >= 0
    order = np.argsort(seconds[known], kind="stable")
    item, seconds = item[known][order], seconds[known][order]
    first = np.full(len(listed_from), np.inf)
    np.minimum.at(first, item, seconds)
    born = np.minimum(first, listed_from if born is None else born)
    return ItemStatistics(item, seconds, listed_from, born, first, tuple(windows_days), groups)


def catalogue_statistics(
    items: pl.DataFrame, item: NDArray[np.int64], seconds: NDArray[np.float64], windows_days: list[float]
) -> ItemStatistics:
    """Statistics of a catalogue, of its items and of their advertisers and categories.

    Args:
        items: item_id (unique, sorted), advertiser_id, category, available_from, listed_from; ``item`` [events] are its
            rows.
    """
    listed_from, available_from = to_seconds(items["listed_from"]), to_seconds(items["available_from"])
    born = np.where(np.isfinite(available_from), available_from, listed_from)
    return build_item_statistics(
        item, seconds, listed_from, windows_days=windows_days, groups=item_groups(items), born=born
    )

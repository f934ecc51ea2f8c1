"""Item features of both towers: the item's content, category, interests, advertiser and price, and, as of an instant,
the item's trailing counts and age. No feature is an item id, so a new item works at once.
"""

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
        """Return a table with one row an item and list columns, as the warehouse keeps it.

        ``statistics`` [items, width] become a column too.
        """
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
        """Return the features and the statistics that ``to_frame`` has turned into a table.

        The table does not keep cold content, which only training needs: it is zero here.
        """
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
    """Build the features of a catalogue under a frozen content basis.

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
    """Return the given interests; where there are none, the nodes of the category path.

    The leaf of the path has confidence 1, and each parent has half the confidence of its child.
    """
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

    An item is listed if the feed lists the item before the instant, or the log has shown the item before the instant.
    This one rule decides which items may be a negative, a candidate or a neighbour. No later event takes part, so a
    corpus does not tell which items sell for the first time after the instant.

    Args:
        listed_from: [items] seconds since 1970 UTC from which the feed lists or the log shows the item; -inf =
            always, inf = never.
    """
    return listed_from < seconds


@dataclass(frozen=True)
class ItemStatistics:
    """Trailing counts and age of every item, and counts of its advertiser and its category, as of any instant.

    Only events before the instant are read, so no event of a label window can leak in.
    """

    item: NDArray[np.int64]  # [events] catalogue row, in time order
    seconds: NDArray[np.float64]  # [events] ascending
    feed_from: NDArray[np.float64]  # [items] seconds from which the feed lists each; -inf = always
    born: NDArray[np.float64]  # [items] seconds: what the age counts from; -inf = unknown, see ``_since``
    first_event: NDArray[np.float64]  # [items] seconds; inf = no event
    windows_days: tuple[float, ...]
    groups: tuple[NDArray[np.int64], ...] = ()  # a kind of group: the group of each item, -1 = unknown [items]
    events: NDArray[np.int64] | None = None  # [events] how many events each stands for; None: one

    @property
    def width(self) -> int:
        """Return the number of columns of ``at``."""
        return (1 + len(self.groups)) * (len(self.windows_days) + 1) + 2

    @property
    def listed_from(self) -> NDArray[np.float64]:
        """Return the second from which the feed lists or the log shows each item [items], for ``is_listed``."""
        return np.minimum(self.feed_from, self.first_event)

    def listed(self, seconds: float) -> NDArray[np.bool_]:
        """Return which items are listed as of ``seconds`` (``is_listed``) [items]."""
        return is_listed(self.listed_from, seconds)

    def listed_in_window(self, seconds: float, end: float) -> NDArray[np.bool_]:
        """Return which items are listed as of ``seconds``, or by the feed before ``end`` [items].

        These are the items of a label window: the items that can become a positive in the window, whether or not a user
        buys them.
        """
        return self.listed(seconds) | is_listed(self.feed_from, end)

    def at(self, seconds: float) -> NDArray[np.float32]:
        """Return the features [items, width] as of ``seconds`` (exclusive).

        The columns are: log(1 + count) for each window, then for all time; the log of the age in days, divided by 4; 1
        for an item with any event; and for each kind of group log(1 + the group's count / the root of the number of its
        listed items), by window, then for all time. This last figure lies between the total, which tells the size of
        the group, and the mean, which tells how the items of the group do.
        """
        items = len(self.feed_from)
        end = int(np.searchsorted(self.seconds, seconds))
        starts = [int(np.searchsorted(self.seconds, seconds - days * DAY)) for days in self.windows_days] + [0]
        counts = np.zeros((items, len(starts)))
        # Windows nest, so each event is counted once: in the slice between two starts, then summed outwards.
        total = np.zeros(items)
        for column in np.argsort(starts)[::-1]:
            part = slice(starts[column], end)
            weights = None if self.events is None else self.events[part]
            total += np.bincount(self.item[part], weights, minlength=items)
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
        """Return the instant from which the age of each item counts [items], as known at ``seconds``.

        The instant is the item's ``available_from``, else the item's arrival, or the item's first event where that
        event is earlier. For an item that has always been listed, without a date, the instant is the first event. If
        such an item has no event before ``seconds``, the instant is the beginning of the log: the item has been unsold
        for so long, which is not the same as new.
        """
        begin = self.seconds[0] if len(self.seconds) else seconds
        shown = np.where(self.first_event < seconds, self.first_event, begin)
        return np.where(np.isneginf(self.born), shown, self.born)


def _sums(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum each column by group: [items, columns] -> [groups, columns]."""
    return np.column_stack([np.bincount(group, weights=column) for column in values.T])


def item_groups(items: pl.DataFrame) -> tuple[NDArray[np.int64], ...]:
    """Return the advertiser and the category of each item as dense numbers from 0; -1 where the value is unknown."""
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
    events: NDArray[np.int64] | None = None,
) -> ItemStatistics:
    """Build statistics from events in any order; events with ``item`` -1 (no item) are left out.

    Args:
        item, seconds: [events]. events: [events] how many events each stands for, by default one. Several events that
            no window of an instant separates may stand in one row with the time of the first, for that instant alone.
        listed_from: [items] seconds from which the feed lists each; -inf = always, inf =
            never.
        born: [items] seconds from which the age counts, where these are not ``listed_from``.
    """
    known = item >= 0
    order = np.argsort(seconds[known], kind="stable")
    item, seconds = item[known][order], seconds[known][order]
    events = None if events is None else events[known][order]
    first = np.full(len(listed_from), np.inf)
    np.minimum.at(first, item, seconds)
    born = np.minimum(first, listed_from if born is None else born)
    return ItemStatistics(item, seconds, listed_from, born, first, tuple(windows_days), groups, events)


def catalogue_statistics(
    items: pl.DataFrame,
    item: NDArray[np.int64],
    seconds: NDArray[np.float64],
    *,
    windows_days: list[float],
    events: NDArray[np.int64] | None = None,
) -> ItemStatistics:
    """Build the statistics of a catalogue: of its items, and of their advertisers and categories.

    Args:
        items: item_id (unique, sorted), advertiser_id, category, available_from, listed_from; ``item`` [events] are its
            rows, and ``events`` says how many events each stands for, as in ``build_item_statistics``.
    """
    listed_from, available_from = to_seconds(items["listed_from"]), to_seconds(items["available_from"])
    born = np.where(np.isfinite(available_from), available_from, listed_from)
    return build_item_statistics(
        item,
        seconds,
        listed_from,
        windows_days=windows_days,
        groups=item_groups(items),
        born=born,
        events=events,
    )

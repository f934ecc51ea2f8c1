"""The ads that may be shown now, and the best of them for each item and country.

An ad may be shown while its status is active, from its start on and before its end, in its countries, as long as its
budget of the day is not used up. Which ads these are changes when the clock passes a start or an end, or when a spend
arrives. Only the items of the ads that changed are then looked at again: a request reads what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.ad_status import runs
from warehouse.days import day_end

NO_AD = -1
OFFER_SCHEMA = pl.Schema({"ad_id": pl.String(), "bid": pl.Float64(), "bid_kind": pl.String()})
# Bids of different kinds are compared by the price of an impression that they promise. Which of its ads an item is
# shown as is decided before the rates of this user and this item are known, so the rates are those of a usual ad.
CLICKS_AN_IMPRESSION = 0.01
CONVERSIONS_A_CLICK = 0.02
_IMPRESSIONS_A_BID = {
    "cpm": 1 / 1000,
    "cpc": CLICKS_AN_IMPRESSION,
    "cpa": CLICKS_AN_IMPRESSION * CONVERSIONS_A_CLICK,
}
_ALWAYS = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
_EVERYWHERE, _ELSEWHERE = None, ""  # views: of a user whose country is unknown; of a country that no ad names
_MANY = 4  # an item in so many changed: the view is made anew, and also after so many changes that nobody asked for:
_CHANGES = 1_000


@dataclass(frozen=True)
class Offer:
    """An ad as a candidate carries it.

    Attributes:
        bid: for one of ``bid_kind``, in the log's currency; None where it is not known.
    """

    ad_id: str
    bid: float | None
    bid_kind: str | None


@dataclass(frozen=True)
class Ads:
    """The ads of a catalogue whose status is active, item by item, the best ad of an item first.

    Attributes:
        offers: [ads] what a candidate carries of each.
        item: [ads] row of the item in the index.
        first: [items + 1] the ads of item ``i`` are the rows ``first[i]`` to ``first[i + 1]``.
        budget: [ads] of a day; infinite without a limit.
        starts, ends: [ads] microseconds since 1970 UTC.
        unrestricted: [ads] whether the ad names no countries.
        ships_to: country -> [ads] whether the ad names the country, or none.
    """

    offers: list[Offer]
    item: NDArray[np.int64]
    first: NDArray[np.int64]
    budget: NDArray[np.float64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    unrestricted: NDArray[np.bool_]
    ships_to: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, ads: pl.DataFrame, item_ids: pl.Series) -> Ads:
        """Return the ads of the items of an index.

        Of the ads of an item the one that promises the highest price of an impression is the best, of equal ones the
        one with the smallest ``ad_id``. A bid that is not known is the lowest; a bid without a kind is for a click.

        Args:
            ads: the contract columns of ads. item_ids: [items] of the index, by row.
        """
        rows = item_ids.alias("item_id").to_frame().with_row_index("row")
        shown = (
            ads.filter(runs(pl.col("status")))
            .join(rows, on="item_id")
            .sort("row", price_of_impression(), "ad_id", descending=[False, True, False], nulls_last=True)
        )
        item = shown["row"].cast(pl.Int64).to_numpy()
        earliest, latest = _ALWAYS
        unrestricted, ships_to = named_countries(shown["countries"])
        return cls(
            [Offer(*row) for row in shown.select(OFFER_SCHEMA.names()).iter_rows()],
            item,
            np.searchsorted(item, np.arange(len(item_ids) + 1)),
            shown["daily_budget"].fill_null(np.inf).to_numpy(),
            shown["starts"].dt.epoch("us").fill_null(earliest).to_numpy(),
            shown["ends"].dt.epoch("us").fill_null(latest).to_numpy(),
            unrestricted,
            ships_to,
        )

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def offer_frame(self) -> pl.DataFrame:
        """Return the offers [ads] as columns of ``OFFER_SCHEMA``."""
        return pl.DataFrame(
            [(each.ad_id, each.bid, each.bid_kind) for each in self.offers], schema=OFFER_SCHEMA, orient="row"
        )

    def of_items(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of all ads of some items, ascending where ``items`` is ascending."""
        begin = self.first[items]
        count = self.first[items + 1] - begin
        ends = np.cumsum(count)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
        return np.repeat(begin, count) + within


@dataclass(frozen=True, eq=False)
class Spend:
    """The ads whose budget of one day of the log is used up.

    Attributes:
        begin, end: the day, microseconds since 1970 UTC; before and after it nothing is spent.
        exhausted: [ads] whether the ad has spent its budget on that day.
    """

    begin: int
    end: int
    exhausted: NDArray[np.bool_]

    @classmethod
    def of_day(cls, ads: Ads, day: date, time_zone: str, amounts: NDArray[np.float64]) -> Spend:
        """Return the spend of a day in the time zone of the log.

        Args:
            amounts: [ads] spent on the day, in the currency of the budgets.
        """
        ends = [_microseconds(day_end(each, time_zone)) for each in (day - timedelta(days=1), day)]
        return cls(ends[0], ends[1], ads.budget <= amounts)


@dataclass(frozen=True, eq=False)
class View:
    """The best ads for the users of one country.

    Attributes:
        best: [items] row of the best ad that may be shown, ``NO_AD`` where there is none.
        shown: [items] whether there is one.
        stale: the items whose ads have changed since, in the order of the changes.
    """

    best: NDArray[np.int32]
    shown: NDArray[np.bool_]
    stale: list[NDArray[np.int64]]


class BestAds:
    """The best ad of each item that may be shown, by country, at the instant of the last ``move_to``.

    One thread moves and asks. ``spend`` may be set by another thread: it counts from the next move on.
    """

    def __init__(self, ads: Ads) -> None:
        self.ads = ads
        self._exhausted = self._at_begin_of_day = ads.budget <= 0
        self.spend = Spend(0, 0, self._exhausted)
        self._counted, self._within_day = self.spend, False
        self._now = _ALWAYS[0]
        times = np.concatenate([ads.starts, ads.ends])
        order = np.argsort(times, kind="stable")
        self._times, self._of_time = times[order], (order % max(1, len(ads))).astype(np.int64)
        self._passed = 0
        self._running = np.zeros(len(ads), bool)
        self._judge(np.arange(len(ads)))
        self._views: dict[str | None, View] = {}

    def view(self, country: str | None) -> View:
        """Return the best ads for a user in ``country``; None or a blank: the countries of ads do not count.

        The view changes with the next move, and only then.
        """
        code = (country or "").strip().upper()
        key = _EVERYWHERE if not code else code if code in self.ads.ships_to else _ELSEWHERE
        if key not in self._views:
            items = len(self.ads.first) - 1
            self._views[key] = View(np.full(items, NO_AD, np.int32), np.zeros(items, bool), [])
            self._fill(self._views[key], np.arange(len(self.ads)), key)
        elif self._views[key].stale:
            self._mend(self._views[key], key)
        return self._views[key]

    def move_to(self, instant: datetime) -> None:
        """Judge the ads anew whose start or end lies between the last instant and this one, or whose budget changed.

        Time may go back.
        """
        now, spend = _microseconds(instant), self.spend
        within = spend.begin <= now < spend.end
        passed = int(np.searchsorted(self._times, np.int64(now), side="right"))
        self._now = now
        if passed == self._passed and spend is self._counted and within == self._within_day:
            return
        low, high = sorted((passed, self._passed))
        changed = self._of_time[low:high]
        if spend is not self._counted or within != self._within_day:
            exhausted = spend.exhausted if within else self._at_begin_of_day
            changed = np.concatenate([changed, np.flatnonzero(exhausted != self._exhausted)])
            self._exhausted, self._counted, self._within_day = exhausted, spend, within
        self._passed = passed
        self._tell_views(self._judge(_distinct(changed, len(self.ads))))

    def _judge(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decide whether some ads may be shown now; return the rows, ascending, whose answer is another one."""
        ads, before = self.ads, self._running[rows]
        after = (ads.starts[rows] <= self._now) & (self._now < ads.ends[rows]) & ~self._exhausted[rows]
        self._running[rows] = after
        return rows[before != after]

    def _tell_views(self, changed: NDArray[np.int64]) -> None:
        """Note in every view the items of which an ad has changed. A view with too many such items is dropped."""
        items, size = _distinct(self.ads.item[changed], len(self.ads.first)), len(self.ads.first)
        for key, view in list(self._views.items()):
            view.stale.append(items)
            if len(view.stale) > _CHANGES or sum(map(len, view.stale)) * _MANY > size:
                del self._views[key]

    def _mend(self, view: View, key: str | None) -> None:
        """Choose the ads of the stale items of a view anew."""
        items = _distinct(np.concatenate(view.stale), len(view.best))
        view.stale.clear()
        view.best[items], view.shown[items] = NO_AD, False
        self._fill(view, self.ads.of_items(items), key)

    def _fill(self, view: View, rows: NDArray[np.int64], key: str | None) -> None:
        """Set the first of ``rows`` [ads, ascending] of each item that may be shown to people of a view."""
        usable = self._running[rows]
        if key is not _EVERYWHERE:
            usable &= self.ads.ships_to.get(key, self.ads.unrestricted)[rows]
        rows = rows[usable]
        items = self.ads.item[rows]
        heads = np.r_[True, items[1:] != items[:-1]] if len(items) else np.zeros(0, bool)
        view.best[items[heads]], view.shown[items[heads]] = rows[heads], True


def price_of_impression() -> pl.Expr:
    """Return the price of an impression that each bid promises, by the rates of a usual ad; null without a bid.

    >>> bids = pl.DataFrame({"bid": [2.0, 0.5, 20.0, 0.3], "bid_kind": ["cpm", "cpc", "cpa", None]})
    >>> bids.select(price_of_impression()).to_series().round(6).to_list()
    [0.002, 0.005, 0.004, 0.003]
    """
    share = pl.col("bid_kind").fill_null("cpc").replace_strict(_IMPRESSIONS_A_BID, return_dtype=pl.Float64)
    return (pl.col("bid") * share).alias("price_of_impression")


def named_countries(countries: pl.Series) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Return which rows name no countries [rows], and for each named country the rows that name it or none [rows].

    Codes are without capitals and outer spaces.

    >>> unrestricted, ships_to = named_countries(pl.Series([["de", " AT"], None, []], dtype=pl.List(pl.String)))
    >>> unrestricted.tolist(), {country: rows.tolist() for country, rows in sorted(ships_to.items())}
    ([False, True, False], {'AT': [True, True, False], 'DE': [True, True, False]})
    """
    named = countries.alias("country").to_frame().with_row_index("row").explode("country").drop_nulls()
    named = named.with_columns(pl.col("country").str.strip_chars().str.to_uppercase()).filter(pl.col("country") != "")
    unrestricted = countries.is_null().to_numpy()
    ships_to: dict[str, NDArray[np.bool_]] = {}
    for country, rows in named.group_by("country").agg("row").iter_rows():
        ships_to[country] = unrestricted.copy()
        ships_to[country][rows] = True
    return unrestricted, ships_to


def _distinct(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return each of ``rows``, all below ``size``, once, ascending."""
    if len(rows) * 100 < size:  # fewer are sorted sooner
        return np.unique(rows)
    among = np.zeros(size, bool)
    among[rows] = True
    return np.flatnonzero(among)


def _microseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1e6)

"""Ads: their bids, budgets, countries and dates, and the best one of each item in each country on a day."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.catalogue import WorldCatalogue
from warehouse.world.names import COUNTRIES
from warehouse.world.settings import WorldSettings

FLIGHTS = 24
"""Ads of an item, nearly one after the other: more than four years of them at the default lengths."""
NO_AD = -1
ACTIVE, PAUSED = "active", "paused"


@dataclass(frozen=True)
class Ads:
    """All ads that begin by the horizon, in order of their item, then of their beginning.

    Attributes:
        item: (ads,) item index. number: (ads,) of the item's ads, 0 … ``FLIGHTS`` - 1.
        first_day, last_day: (ads,) day numbers; an ad runs on both.
        paused_on: (ads,) day number from which its advertiser has paused it; after ``last_day`` where never.
        bid: (ads,) dollars for a conversion. daily_budget: (ads,) dollars, infinite without a limit.
        country: (ads,) index of the only country, -1 for every country that the item ships to.
    """

    catalogue: WorldCatalogue
    item: NDArray[np.int64]
    number: NDArray[np.int64]
    first_day: NDArray[np.int64]
    last_day: NDArray[np.int64]
    paused_on: NDArray[np.int64]
    bid: NDArray[np.float64]
    daily_budget: NDArray[np.float64]
    country: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def ids(self) -> pl.Series:
        """The names, ``d000012-3`` for the fourth ad of item 12: the same under every horizon."""
        numbers = pl.DataFrame({"item": self.item, "number": self.number})
        return numbers.select(id=pl.format("d{}-{}", pl.col("item").cast(pl.String).str.zfill(6), "number")).to_series()

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """Numbers of the ads for the luck (ads,), the same under every horizon."""
        return self.item * FLIGHTS + self.number

    @cached_property
    def _by_bid(self) -> NDArray[np.int64]:
        return np.argsort(self.bid, kind="stable")

    def runs(self, day: int) -> NDArray[np.bool_]:
        """Return whether each ad runs on a day (ads,)."""
        return (self.first_day <= day) & (day <= self.last_day) & (day < self.paused_on)

    def best(self, day: int) -> NDArray[np.int64]:
        """Return the running ad with the highest bid of each item (countries, items), ``NO_AD`` without."""
        items = self.catalogue.items
        found = np.full((len(COUNTRIES), items.count), NO_AD)
        running = self._by_bid[self.runs(day)[self._by_bid]]
        for country in range(len(COUNTRIES)):
            here = running[np.isin(self.country[running], (country, NO_AD))]
            here = here[items.ships_to[self.item[here], country]]
            found[country, self.item[here]] = here  # ascending by bid: the highest is written last
        return found

    def arrivals(self, day: int) -> NDArray[np.int64]:
        """Return the ads of which a row arrives on a day: they begin, or their advertiser pauses them."""
        return np.flatnonzero((self.first_day == day) | ((self.paused_on == day) & self._is_ever_paused))

    @property
    def _is_ever_paused(self) -> NDArray[np.bool_]:
        return self.paused_on <= self.last_day

    def frame(self, rows: NDArray[np.int64], day: int) -> pl.DataFrame:
        """Return the ads table (``warehouse.contracts``) of some ads as of a day."""
        settings, catalogue = self.catalogue.settings, self.catalogue
        midnight = int(settings.midnight(0).timestamp() * 1_000_000)
        day_length = 86_400_000_000
        local = [None if country < 0 else [COUNTRIES[country]] for country in self.country[rows]]
        budget = self.daily_budget[rows]
        paused = ((self.paused_on <= day) & self._is_ever_paused)[rows]
        return pl.DataFrame(
            {
                "ad_id": self.ids.gather(rows),
                "item_id": catalogue.items.ids.gather(self.item[rows]),
                "advertiser_id": catalogue.advertiser_ids.gather(catalogue.items.advertiser[self.item[rows]]),
                "campaign_id": catalogue.advertiser_ids.gather(catalogue.items.advertiser[self.item[rows]]),
                "bid": self.bid[rows],
                "bid_kind": ["cpa"] * len(rows),
                "daily_budget": pl.Series(budget).set(pl.Series(np.isinf(budget)), None),
                "countries": pl.Series(local, dtype=pl.List(pl.String)),
                "starts": pl.Series(midnight + self.first_day[rows] * day_length).cast(pl.Datetime("us", "UTC")),
                "ends": pl.Series(midnight + (self.last_day[rows] + 1) * day_length).cast(pl.Datetime("us", "UTC")),
                "status": pl.Series([ACTIVE, PAUSED]).gather(paused.astype(np.int64)),
            },
        ).with_columns(campaign_id=pl.format("{}-{}", "campaign_id", pl.Series(self.number[rows])))


def build_ads(catalogue: WorldCatalogue, last_day: int) -> Ads:
    """Return the ads that begin up to and including ``last_day`` (a day number)."""
    items = catalogue.items
    batches = np.split(np.arange(items.count), np.flatnonzero(np.diff(items.first_day)) + 1)
    parts = [_flights(catalogue, rows) for rows in batches if len(rows)]
    ads = Ads(catalogue, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    kept = np.flatnonzero(ads.first_day <= last_day)
    return Ads(catalogue, **{name: getattr(ads, name)[kept] for name in parts[0]})


def _flights(catalogue: WorldCatalogue, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """Return the columns of the ads of the items that appear on one day."""
    settings: WorldSettings = catalogue.settings
    market, first = settings.market, int(catalogue.items.first_day[rows[0]])
    generator = settings.generator("ads", first)
    shape = (len(rows), FLIGHTS)
    length = np.maximum(np.rint(generator.exponential(market.flight_days, shape)), 3).astype(np.int64)
    pause = np.rint(generator.normal(market.pause_days, market.pause_days, shape)).astype(np.int64)
    # Items of the first day are in the middle of an ad when the world begins.
    begun = generator.integers(0, max(int(market.flight_days), 1), len(rows)) * (first == 0)
    step = np.maximum(length + pause, 1)
    start = first - begun[:, None] + np.cumsum(step, axis=1) - step
    paused = generator.random(shape) < market.paused_share
    paused_on = np.where(paused, start + 1 + (generator.random(shape) * length).astype(np.int64), start + length + 1)
    price = catalogue.items.price[rows][:, None]
    bid = market.bid_level * price**market.bid_price_exponent * np.exp(generator.normal(0, market.bid_spread, shape))
    budget = market.daily_budget * np.exp(generator.normal(0, market.budget_spread, shape))
    unlimited = generator.random(shape) >= market.budgeted_share
    local = generator.random(shape) < market.local_share
    country = generator.integers(0, len(COUNTRIES), shape)
    columns = {
        "item": np.broadcast_to(rows[:, None], shape),
        "number": np.broadcast_to(np.arange(FLIGHTS), shape),
        "first_day": start,
        "last_day": start + length - 1,
        "paused_on": paused_on,
        "bid": np.round(bid, 2),
        "daily_budget": np.where(unlimited, np.inf, np.round(budget, 3)),
        "country": np.where(local, country, NO_AD),
    }
    return {name: values.ravel() for name, values in columns.items()}

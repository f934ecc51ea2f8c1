"""What does a request pay for the rule of who may be shown what, on a million items with a million ads?

Random ads: a bid each, a start and an end for half of them, a budget for a third, two countries for half. Of a request
only ``Eligibility.mask`` is timed, which the service calls once a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import polars as pl
from rich.console import Console

from benchmarks.report import Table, at_most
from serving.count_spend import SpendCounters
from warehouse.best_ads import BestAds
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.eligibility import Eligibility
from warehouse.online import LmdbStore
from warehouse.online.spend import put_spend

ITEMS = ADS = 1_000_000
COUNTRIES = ("DE", "US", "FR", "NL", "AT", "ES", "IT", "PL", "GB", "BR")
REQUESTS, SPENDING = 2_000, 100_000
DAY = date(2026, 3, 10)
Result = TypeVar("Result")
MORNING, NOON = datetime(2026, 3, 10, 8, tzinfo=UTC), datetime(2026, 3, 10, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Seconds:
    """The times of one kind of call."""

    name: str
    seconds: list[float]

    def row(self, target: str = "") -> tuple[str, ...]:
        """Return the name, and the median, the 99th percentile and the largest time in milliseconds."""
        times = np.array(self.seconds) * 1e3
        return (self.name, *(f"{np.percentile(times, share):.2f}" for share in (50, 99, 100)), target)


def run(console: Console) -> tuple[list[Seconds], Table]:
    """Build the rule, and ask."""
    random = np.random.default_rng(0)
    item_ids = [f"i{number:07}" for number in range(ITEMS)]
    rule, built = _timed(lambda: Eligibility.of(_items(item_ids, random), _ads(item_ids, random)))
    assert rule.ads is not None
    rule.mask(None, MORNING)  # as the service does before it answers
    first = Seconds("the first request of a country", [_asked(rule, country, MORNING) for country in COUNTRIES])
    usual = Seconds("a request", [_asked(rule, country, MORNING) for country in _countries(random)])
    moving = [MORNING + timedelta(seconds=number) for number in range(REQUESTS)]
    passing = [_asked(rule, country, instant) for country, instant in zip(_countries(random), moving, strict=True)]
    started = Seconds("a request, the clock a second on: about 6 starts", passing)
    hours = Seconds("a request four hours later: about 80,000 starts", [_asked(rule, "DE", NOON)])
    counted, exhausting = _spending(rule, rule.ads)
    measured = [usual, started, first, hours, counted, exhausting]
    table = Table(
        f"Who may be shown what: {ITEMS:,} items, {ADS:,} ads, {len(COUNTRIES)} countries",
        ("milliseconds", "p50", "p99", "largest", "target"),
        tuple(
            each.row(
                at_most(float(np.percentile(each.seconds, 99) * 1e3), 1, " ms") if each in (usual, started) else ""
            )
            for each in measured
        ),
        (f"Building the rule took {built:.1f} s; the service does so beside what answers.",),
    )
    table.show(console)
    return measured, table


def _spending(rule: Eligibility, best: BestAds) -> tuple[Seconds, Seconds]:
    """Return the times of reading counters, and of the request after it, which uses them."""
    spent = {offer.ad_id: 1.0 for offer in best.ads.offers[:SPENDING]}
    with TemporaryDirectory(prefix="adseq-masks-") as directory:
        store = LmdbStore(Path(directory))
        put_spend(store, DAY, spent)
        counters = SpendCounters(store)
        reading, asking = [], []
        for number in range(20):
            put_spend(store, DAY, dict.fromkeys(list(spent)[number * 100 : number * 100 + 100], 100.0))
            reading.append(_timed(lambda: counters.read(best, NOON, "UTC"))[1])
            asking.append(_asked(rule, "DE", NOON))
        store.close()
    return (
        Seconds(f"reading the counters of {SPENDING:,} ads, 100 of them new", reading),
        Seconds("a request after such a reading", asking),
    )


def _asked(rule: Eligibility, country: str, instant: datetime) -> float:
    return _timed(lambda: rule.mask(country, instant))[1]


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _countries(random: np.random.Generator) -> list[str]:
    return random.choice(COUNTRIES, REQUESTS).tolist()


def _items(item_ids: list[str], random: np.random.Generator) -> pl.DataFrame:
    shipped = [["DE", "FR", "NL"], ["US"], None, None]
    words = random.choice(["in stock", "out of stock"], ITEMS, p=[0.9, 0.1])
    countries = [shipped[which] for which in random.integers(0, len(shipped), ITEMS).tolist()]
    return pl.DataFrame({"item_id": item_ids, "availability": words.tolist(), "countries": countries})


def _ads(item_ids: list[str], random: np.random.Generator) -> pl.DataFrame:
    """Return random ads, in contract columns."""
    # Starts within the day before noon, ends within the day after it.
    pairs = [list(pair) for pair in pairwise(COUNTRIES)] + [None] * len(COUNTRIES)
    seconds = random.integers(0, 86_400, (2, ADS)) * 10**6
    middle = pl.lit(NOON).dt.epoch("us")
    ads = pl.DataFrame(
        {
            "ad_id": [f"a{number:07}" for number in range(ADS)],
            "item_id": pl.Series(item_ids).gather(random.integers(0, ITEMS, ADS)),
            "bid": random.random(ADS),
            "bid_kind": random.choice(["cpc", "cpm", "cpa"], ADS),
            "daily_budget": np.where(random.random(ADS) < 1 / 3, 50.0, np.nan),
            "countries": [pairs[which] for which in random.integers(0, len(pairs), ADS).tolist()],
            "starts": seconds[0],
            "ends": seconds[1],
            "dated": random.random(ADS) < 0.5,
        }
    ).with_columns(pl.col("daily_budget").fill_nan(None), status=pl.lit("active"))
    dated = {
        name: pl.from_epoch(pl.when("dated").then(middle + sign * pl.col(name)), "us").dt.replace_time_zone("UTC")
        for name, sign in (("starts", -1), ("ends", 1))
    }
    schema = pl.Schema(SCHEMAS[LandingTable.ads])
    nothing = {name: pl.lit(None) for name in ("advertiser_id", "campaign_id")}
    return ads.with_columns(**dated, **nothing).select(schema.names()).cast(schema)

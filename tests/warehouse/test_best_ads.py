"""No request gets an ad that may not be shown, whatever the clock, the budgets and the countries do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from warehouse.ad_status import unknown_statuses
from warehouse.availability import SHOWN, Availability
from warehouse.best_ads import BestAds, Spend
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.eligibility import Eligibility

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TODAY, HOUR = NOON.date(), timedelta(hours=1)
SCHEMA = pl.Schema(SCHEMAS[LandingTable.ads])
STATUSES = {None: True, "active": True, "ENABLED": True, "paused": False, "Archived": False, "angehalten": False}
COUNTRIES = ("DE", "us", " FR ", "NL")
ASKED = (None, "", "DE", "de", "US", "FR", "AT")
RATE = {None: 0.01, "cpc": 0.01, "cpm": 0.001, "cpa": 0.0002}
WORLDS, REQUESTS = 100, 1_000


def ad(ad_id: str, item_id: str = "i0", **fields: Any) -> dict[str, Any]:
    return {"ad_id": ad_id, "item_id": item_id, **fields}


def rule_of(ads: list[dict[str, Any]] | None, items: int = 1, words: list[str | None] | None = None) -> Eligibility:
    schema = pl.Schema({"item_id": pl.String(), "availability": pl.String(), "countries": pl.List(pl.String())})
    stock = {"item_id": [f"i{row}" for row in range(items)], "availability": words or [None] * items}
    frame = pl.DataFrame({**stock, "countries": [None] * items}, schema=schema)
    return Eligibility.of(frame, None if ads is None else pl.DataFrame(ads, schema=SCHEMA))


def shown(rule: Eligibility, country: str | None = None, instant: datetime = NOON) -> list[str | None]:
    """The best ad of each item; None where the item may not be shown."""
    mask = rule.mask(country, instant)
    offers = [rule.offer(country, row) for row in range(len(mask))]
    assert [offer is not None for offer in offers] == mask.tolist()
    return [None if offer is None else offer.ad_id for offer in offers]


def spent(rule: Eligibility, amounts: dict[str, float], day: date, time_zone: str = "UTC") -> None:
    best = ads_of(rule)
    of_ad = np.array([amounts.get(offer.ad_id, 0.0) for offer in best.ads.offers])
    best.spend = Spend.of_day(best.ads, day, time_zone, of_ad)


def ads_of(rule: Eligibility) -> BestAds:
    assert rule.ads is not None
    return rule.ads


def test_an_ad_is_shown_from_its_start_on_and_before_its_end() -> None:
    rule = rule_of([ad("a", starts=NOON, ends=NOON + HOUR)])
    before, last = timedelta(microseconds=-1), HOUR - timedelta(microseconds=1)
    for offset, expected in ((before, None), (0 * HOUR, "a"), (last, "a"), (HOUR, None), (last, "a"), (before, None)):
        assert shown(rule, instant=NOON + offset) == [expected]


def test_a_budget_is_that_of_a_day_of_the_log() -> None:
    rule = rule_of([ad("a", bid=2.0, daily_budget=10.0), ad("b", bid=1.0), ad("c", "i1", daily_budget=0.0)], items=2)
    assert shown(rule) == ["a", None]
    for amount, expected in ((9.99, "a"), (10.0, "b"), (9.0, "a"), (11.0, "b")):
        spent(rule, {"a": amount}, NOON.date(), "Europe/Berlin")
        assert shown(rule) == [expected, None]
    midnight = datetime(2026, 3, 10, 23, tzinfo=UTC)  # in Berlin
    assert shown(rule, instant=midnight - timedelta(seconds=1)) == ["b", None]
    assert shown(rule, instant=midnight) == ["a", None]
    assert shown(rule, instant=midnight - timedelta(seconds=1)) == ["b", None]


def test_of_the_ads_of_an_item_the_one_that_promises_most_for_an_impression_is_shown() -> None:
    ads = [
        ad("a", bid=9.0, bid_kind="cpm"),  # .009 an impression
        ad("b", bid=1.0, bid_kind="cpc"),  # .01
        ad("c", bid=49.0, bid_kind="cpa"),  # .0098
        ad("d", bid=1.0),  # .01, as cpc
        ad("e"),
    ]
    assert shown(rule_of(ads)) == ["b"]
    assert shown(rule_of([each for each in ads if each["ad_id"] != "b"])) == ["d"]
    assert shown(rule_of([ads[0], ads[2], ads[4]])) == ["c"]
    assert shown(rule_of([ads[4], ad("f", bid=0.0)])) == ["f"]
    offer = rule_of([ads[2]]).offer(None, 0)
    assert offer is not None
    assert (offer.bid, offer.bid_kind) == (49.0, "cpa")


def test_an_item_without_an_ad_is_not_shown_once_there_are_ads() -> None:
    assert shown(rule_of([ad("a", "i1")], items=3)) == [None, "a", None]
    assert shown(rule_of([ad("a", "another item")], items=2)) == [None, None]
    assert shown(rule_of([ad("a", status="paused")])) == [None]
    assert shown(rule_of([])) == [None]  # there are ads, of other items
    assert rule_of(None, items=2).mask(None, NOON).all()


def test_the_words_that_nobody_knows_are_counted() -> None:
    words = pl.Series("status", ["active", "angehalten", None, "PAUSED", "angehalten", ""])
    assert unknown_statuses(words) == {"angehalten": 2}


@dataclass
class Market:
    """Random ads of some items."""

    random: np.random.Generator
    items: int
    words: list[str | None]
    ads: list[dict[str, Any]]
    day: date = TODAY
    spent: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int) -> Market:
        random = np.random.default_rng(seed)
        items = int(random.integers(1, 9))
        words: list[str | None] = [str(random.choice(["in stock", "sold out"], p=[0.8, 0.2])) for _ in range(items)]
        return cls(random, items, words, [cls._ad(random, number, items) for number in range(random.integers(1, 25))])

    @staticmethod
    def _ad(random: np.random.Generator, number: int, items: int) -> dict[str, Any]:
        def sometimes(value: Any) -> Any:
            return value if random.random() < 0.6 else None

        return ad(
            f"a{number:02}",
            f"i{random.integers(0, items)}",
            bid=sometimes(float(random.integers(1, 4))),
            bid_kind=sometimes(str(random.choice(["cpc", "cpm", "cpa"]))),
            daily_budget=sometimes(float(random.integers(0, 4))),
            countries=sometimes(random.choice(COUNTRIES, int(random.integers(0, 3))).tolist()),
            starts=sometimes(NOON + HOUR * int(random.integers(-30, 30))),
            ends=sometimes(NOON + HOUR * int(random.integers(-30, 30))),
            status=random.choice(np.array(list(STATUSES), object), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1]),
        )

    def why_not(self, row: dict[str, Any], country: str | None, instant: datetime) -> str | None:
        """Why an ad may not be shown; None where it may."""
        asked = (country or "").strip().upper()
        here = instant.date() == self.day
        if not STATUSES[row["status"]]:
            return "paused"
        if row["starts"] is not None and instant < row["starts"]:
            return "not started"
        if row["ends"] is not None and instant >= row["ends"]:
            return "ended"
        if asked and row["countries"] is not None and asked not in [each.strip().upper() for each in row["countries"]]:
            return "another country"
        if row["daily_budget"] is not None and self.spent.get(row["ad_id"], 0.0) * here >= row["daily_budget"]:
            return "no budget left"
        return None

    def best(self, country: str | None, instant: datetime, reasons: Counter[str | None]) -> list[str | None]:
        """The best ad of each item, an ad at a time."""
        found: list[tuple[float, str] | None] = [None] * self.items
        for row in self.ads:
            why = self.why_not(row, country, instant)
            reasons[why] += 1
            item = int(row["item_id"][1:])
            price = -1.0 if row["bid"] is None else row["bid"] * RATE[row["bid_kind"]]
            if why is None and (found[item] is None or (-price, row["ad_id"]) < found[item]):
                found[item] = (-price, row["ad_id"])
        sold_out = [Availability.out_of_stock not in SHOWN and word == "sold out" for word in self.words]
        return [None if each is None or gone else each[1] for each, gone in zip(found, sold_out, strict=True)]

    def spend(self) -> None:
        """Let some ads spend, on this day or on another one."""
        self.day = TODAY + timedelta(days=int(self.random.integers(-1, 2)))
        chosen = self.random.choice([each["ad_id"] for each in self.ads], 3)
        self.spent = {**self.spent, **{str(each): float(self.random.integers(0, 5)) for each in chosen}}


def test_no_ad_that_may_not_be_shown_is_in_any_of_100_000_requests() -> None:
    """Against the same rules, read an ad at a time; the clock goes on, and at times back."""
    reasons: Counter[str | None] = Counter()
    for seed in range(WORLDS):
        market = Market.of(seed)
        rule = rule_of(market.ads, market.items, market.words)
        best, instant = ads_of(rule), NOON - 40 * HOUR
        for _ in range(REQUESTS):
            instant += timedelta(
                minutes=float(market.random.choice([0, 1, 7.5, 120, -60], p=[0.3, 0.3, 0.3, 0.05, 0.05]))
            )
            if market.random.random() < 0.05:
                market.spend()
                of_ad = np.array([market.spent.get(offer.ad_id, 0.0) for offer in best.ads.offers])
                best.spend = Spend.of_day(best.ads, market.day, "UTC", of_ad)
            country = ASKED[int(market.random.integers(len(ASKED)))]
            expected = market.best(country, instant, reasons)
            mask = rule.mask(country, instant)
            assert mask.tolist() == [each is not None for each in expected]
            offers = [rule.offer(country, row) for row in np.flatnonzero(mask).tolist()]
            assert [offer.ad_id for offer in offers if offer] == [each for each in expected if each is not None]
    assert min(reasons.values()) > 10_000  # each rule has kept ads back, and ads were shown
    assert len(reasons) == 6


@pytest.mark.parametrize("ads", [2, 40])
def test_a_view_that_is_renewed_is_one_that_is_made_anew(ads: int) -> None:
    """Few of many items change: the views are mended and not thrown away."""
    rows = [ad(f"a{n}", f"i{n % 200}", bid=1.0, starts=NOON + HOUR * n, ends=NOON + HOUR * (n + 5)) for n in range(ads)]
    rule = rule_of(rows, items=200)
    for hour in range(-1, ads + 7):
        fresh = rule_of(rows, items=200)
        assert np.array_equal(rule.mask("DE", NOON + HOUR * hour), fresh.mask("DE", NOON + HOUR * hour))

"""What logged requests could not show, worked by hand: ads, countries and stock as of the day of each request."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from settings import DataSettings
from warehouse.contracts import LandingTable
from warehouse.hidden_items import hidden_items
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

DAY = date(2026, 3, 10)
NOON, DAYS = datetime(2026, 3, 10, 12, tzinfo=UTC), timedelta(days=1)
ITEMS = pl.Series(["a", "b", "c", "d"])
STOCK: list[dict[str, object]] = [
    {"item_id": "a"},
    {"item_id": "b", "countries": ["DE"]},
    {"item_id": "c", "availability": "out of stock"},
    {"item_id": "d"},
]
ADS: list[dict[str, object]] = [
    {"ad_id": "a1", "item_id": "a", "starts": NOON, "ends": NOON + DAYS},
    {"ad_id": "b1", "item_id": "b"},
    {"ad_id": "c1", "item_id": "c"},
    {"ad_id": "d1", "item_id": "d", "countries": ["US"]},
]


def arrive(landing: Landing, tables: Tables, table: LandingTable, day: date, rows: list[dict[str, object]]) -> None:
    landing.write(table, day, pl.DataFrame(rows, infer_schema_length=None))
    ingest(landing, tables, table, day=day, settings=DataSettings())


@pytest.fixture
def home(landing: Landing, tables: Tables) -> tuple[Tables, Landing]:
    """``ann`` lives in Germany and ``bob`` in the United States; of ``eve`` nothing is known."""
    users: list[dict[str, object]] = [{"user_id": "ann", "country": "DE"}, {"user_id": "bob", "country": "US"}]
    arrive(landing, tables, LandingTable.users, DAY, users)
    arrive(landing, tables, LandingTable.items, DAY, STOCK)
    return tables, landing


def hidden(home: tuple[Tables, Landing], *requests: tuple[str, datetime]) -> list[str]:
    """The hidden items of each request, as one word."""
    key = UserKeys.of(*home).key
    asked = {"user_id": [key(user) for user, _ in requests], "request_time": [instant for _, instant in requests]}
    rows, items = hidden_items(*home, pl.DataFrame(asked), ITEMS)
    return ["".join(sorted(ITEMS.gather(items[rows == row]).to_list())) for row in range(len(requests))]


def test_an_item_needs_an_ad_of_the_instant_and_of_the_country(home: tuple[Tables, Landing]) -> None:
    arrive(home[1], home[0], LandingTable.ads, DAY, ADS)
    late, second = NOON + DAYS, timedelta(seconds=1)
    requests = [("bob", late), ("ann", NOON - second), ("ann", NOON), ("bob", NOON), ("eve", NOON), ("ann", late)]
    assert hidden(home, *requests) == ["abc", "acd", "cd", "bc", "c", "acd"]


def test_without_ads_stock_and_countries_decide_as_they_do_in_the_service(home: tuple[Tables, Landing]) -> None:
    assert hidden(home, ("ann", NOON), ("bob", NOON), ("eve", NOON)) == ["c", "bc", "c"]


def test_ads_and_stock_are_those_of_the_day_of_the_request(home: tuple[Tables, Landing]) -> None:
    tables, landing = home
    arrive(landing, tables, LandingTable.ads, DAY, ADS)
    later: list[dict[str, object]] = [{"ad_id": "b1", "item_id": "b", "status": "paused"}]
    arrive(landing, tables, LandingTable.ads, DAY + 2 * DAYS, later)
    arrive(landing, tables, LandingTable.items, DAY + 2 * DAYS, [{"item_id": "c"}])
    days = [("ann", NOON + day * DAYS) for day in (-3, 0, 1, 2)]
    assert hidden(home, *days) == ["acd", "cd", "acd", "abd"]


def test_no_request_hides_nothing(home: tuple[Tables, Landing]) -> None:
    none = pl.DataFrame(schema={"user_id": pl.String, "request_time": pl.Datetime("us", "UTC")})
    assert [len(each) for each in hidden_items(*home, none, ITEMS)] == [0, 0]

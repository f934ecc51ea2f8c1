from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from settings import DataSettings
from warehouse.as_of import (
    NEVER,
    ads_as_of,
    arrived_by,
    engaged_items,
    events_as_of,
    items_as_of,
    items_at,
    items_of_users,
    spend_as_of,
    users_as_of,
)
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.tables import TableMissing, Tables

DAY = date(2026, 3, 10)
NEXT = DAY + timedelta(days=1)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def arrive(landing: Landing, tables: Tables, table: LandingTable, day: date, rows: list[dict[str, object]]) -> None:
    landing.write(table, day, pl.DataFrame(rows, infer_schema_length=None))
    ingest(landing, tables, table, day=day, settings=DataSettings())


def event(event_id: str, item_id: str | None, time: datetime, advertiser_id: str | None = None) -> dict[str, object]:
    fields = {"user_id": "u", "event_time": time, "event_name": "custom", "item_id": item_id}
    return {"event_id": event_id, **fields, "advertiser_id": advertiser_id}


def test_a_day_sees_the_newest_version_that_had_arrived(landing: Landing, tables: Tables) -> None:
    arrive(landing, tables, LandingTable.events, DAY, [event("1", "a", NOON)])
    arrive(landing, tables, LandingTable.items, NEXT, [{"item_id": "a", "price": 2.0}, {"item_id": "b", "price": 3.0}])
    arrive(landing, tables, LandingTable.items, DAY, [{"item_id": "a", "price": 1.0}])
    prices = [dict(items_as_of(tables, landing, day).select("item_id", "price").iter_rows()) for day in (DAY, NEXT)]
    assert prices == [{"a": 1.0}, {"a": 2.0, "b": 3.0}]


def test_users_are_dated_too(tables: Tables, landing: Landing) -> None:
    assert users_as_of(tables, DAY).columns == ["user_id", "age", "gender", "country"]
    arrive(landing, tables, LandingTable.users, DAY, [{"user_id": "v", "age": 30}, {"user_id": "u", "age": 40}])
    arrive(landing, tables, LandingTable.users, NEXT, [{"user_id": "u", "age": 41}])
    of = UserKeys.of(tables, landing).key
    ages = [dict(users_as_of(tables, day).select("user_id", "age").iter_rows()) for day in (DAY, NEXT)]
    assert ages == [{of("u"): 40, of("v"): 30}, {of("u"): 41, of("v"): 30}]


def test_an_item_of_the_first_feed_is_listed_from_what_is_given_whatever_its_events_are(
    landing: Landing, tables: Tables
) -> None:
    hour = timedelta(hours=1)
    events = [event("1", item, NOON) for item in ("early", "late", "none")] + [event("4", "none", NOON - hour)]
    arrive(landing, tables, LandingTable.events, DAY, [{**row, "event_id": str(n)} for n, row in enumerate(events)])
    given = {"early": NOON - hour, "late": NOON + hour, "none": None, "unseen": NOON, "unknown": None}
    rows: list[dict[str, object]] = [{"item_id": item, "available_from": time} for item, time in given.items()]
    arrive(landing, tables, LandingTable.items, DAY, rows)
    found = items_as_of(tables, landing, DAY)
    assert dict(found.select("item_id", "available_from").iter_rows()) == given
    assert dict(found.select("item_id", "listed_from").iter_rows()) == given


def test_a_later_arrival_is_listed_from_its_first_day_on_whatever_its_newest_version_is(
    landing: Landing, tables: Tables
) -> None:
    """The first feed counts as that of always; ``before`` has been on sale for long, and the feed has it since NEXT."""
    late = NEXT + timedelta(days=1)
    arrive(landing, tables, LandingTable.events, DAY, [event("1", "old", NOON), event("2", "only the log", NOON)])
    arrive(
        landing, tables, LandingTable.items, DAY, [{"item_id": "old"}, {"item_id": "coming", "available_from": None}]
    )
    new: list[dict[str, object]] = [{"item_id": item, "available_from": None} for item in ("new", "old")]
    arrive(landing, tables, LandingTable.items, NEXT, [*new, {"item_id": "before", "available_from": NOON}])
    opening = NOON + timedelta(days=9)
    arrive(landing, tables, LandingTable.items, late, [*new, {"item_id": "coming", "available_from": opening}])
    midnight = datetime(2026, 3, 11, tzinfo=UTC)
    listed = dict(items_as_of(tables, landing, late).select("item_id", "listed_from").iter_rows())
    assert listed == {"old": None, "new": midnight, "before": midnight, "coming": opening, "only the log": NEVER}


def test_the_catalogue_at_an_instant_is_that_of_the_newest_day_that_had_ended(landing: Landing, tables: Tables) -> None:
    arrive(landing, tables, LandingTable.events, DAY, [event("1", "a", NOON)])
    for day, price in ((DAY, 1.0), (NEXT, 2.0)):
        arrive(landing, tables, LandingTable.items, day, [{"item_id": "a", "price": price}])
    second, microsecond = datetime(2026, 3, 12, tzinfo=UTC), timedelta(microseconds=1)
    instants = (NOON - timedelta(days=50), second - microsecond, second)
    assert [items_at(tables, landing, each)["price"].to_list() for each in instants] == [[1.0], [1.0], [2.0]]


def test_items_that_only_events_know_are_added_with_their_advertiser(landing: Landing, tables: Tables) -> None:
    rows = [
        event("1", "new", NOON, "second"),
        event("2", "new", NOON - timedelta(hours=2)),
        event("3", "new", NOON - timedelta(hours=1), "first"),
        event("4", None, NOON, "signup only"),
    ]
    arrive(landing, tables, LandingTable.events, DAY, rows)
    [item] = items_as_of(tables, landing, DAY).to_dicts()
    assert (item["item_id"], item["advertiser_id"], item["title"]) == ("new", "first", None)
    assert (item["available_from"], item["listed_from"]) == (None, NEVER)


def test_nothing_of_the_future_shows(landing: Landing, tables: Tables) -> None:
    tomorrow = datetime(2026, 3, 11, tzinfo=UTC)
    arrive(landing, tables, LandingTable.events, DAY, [event("1", "a", NOON), event("2", "clock ahead", tomorrow)])
    arrive(landing, tables, LandingTable.events, NEXT, [event("3", "late", NOON)])
    assert events_as_of(tables, landing, DAY)["event_id"].to_list() == ["1"]
    assert items_as_of(tables, landing, DAY)["item_id"].to_list() == ["a"]
    assert events_as_of(tables, landing, NEXT, ["event_id", "late"]).rows() == [("1", False), ("3", True), ("2", False)]


def test_events_need_an_ingested_log(landing: Landing, tables: Tables) -> None:
    with pytest.raises(TableMissing):
        events_as_of(tables, landing, DAY)


def test_what_was_engaged_with_is_that_of_the_day(landing: Landing, tables: Tables) -> None:
    events = [event("1", "a", NOON), event("2", "a", NOON), event("3", None, NOON)]
    arrive(landing, tables, LandingTable.events, DAY, [*events, {**event("4", "b", NOON), "user_id": "v"}])
    arrive(landing, tables, LandingTable.events, NEXT, [event("5", "c", NOON + timedelta(days=1))])
    of = UserKeys.of(tables, landing).key
    assert sorted(engaged_items(tables, landing, DAY)) == ["a", "b"]
    assert items_of_users(tables, landing, DAY, pl.Series([of("u")])).rows() == [(of("u"), "a")]
    assert sorted(engaged_items(tables, landing, NEXT)) == ["a", "b", "c"]


def test_a_table_from_before_a_column_came_to_be_has_nulls_and_takes_the_new_rows(
    landing: Landing, tables: Tables
) -> None:
    row = {"request_id": "r", "request_time": NOON, "user_id": "u", "surface": "search", "item_id": "a"}
    schema = pl.Schema(SCHEMAS[LandingTable.impressions])
    UserKeys.of(tables, landing)
    assert arrived_by(tables, LandingTable.impressions, DAY).collect().is_empty()  # never ingested
    before = pl.DataFrame([{**row, "stage": "clicked"}], schema=schema)
    tables.write("impressions", before.drop("ad_id", "propensity", "price_paid", "value"), {"arrival_date": DAY})
    found = arrived_by(tables, LandingTable.impressions, DAY).collect()
    assert found.schema == pl.Schema({**schema, "arrival_date": pl.Date()})
    assert found["price_paid"].to_list() == [None]
    new: dict[str, object] = {**row, "stage": "converted", "ad_id": "1", "price_paid": 0.5}
    arrive(landing, tables, LandingTable.impressions, NEXT, [new])
    assert arrived_by(tables, LandingTable.impressions, DAY).collect()["price_paid"].to_list() == [None]
    both = arrived_by(tables, LandingTable.impressions, NEXT).collect().sort("arrival_date")
    assert both["ad_id"].to_list() == [None, "1"]
    assert both["price_paid"].to_list() == [None, 0.5]


def test_a_day_sees_the_newest_version_of_each_ad(landing: Landing, tables: Tables) -> None:
    assert ads_as_of(tables, DAY) is None
    ads = LandingTable.ads
    arrive(landing, tables, ads, NEXT, [{"ad_id": "b", "item_id": "i", "status": "paused"}])
    arrive(landing, tables, ads, DAY, [{"ad_id": each, "item_id": "i", "status": "active"} for each in "cab"])
    assert ads_as_of(tables, DAY - timedelta(days=1)) is None
    first, second = ads_as_of(tables, DAY), ads_as_of(tables, NEXT)
    assert first is not None
    assert second is not None
    assert first.schema == pl.Schema(SCHEMAS[LandingTable.ads])
    assert first.select("ad_id", "status").rows() == [(each, "active") for each in "abc"]
    assert second["status"].to_list() == ["active", "paused", "active"]


def test_spend_is_that_of_the_impressions_known_by_an_instant(landing: Landing, tables: Tables) -> None:
    request = {"user_id": "u", "surface": "search", "stage": "clicked"}

    def shown(number: int, ad_id: str | None, hour: int, price: float | None) -> dict[str, object]:
        time = NOON + timedelta(hours=hour)
        return {
            "request_id": f"r{number}",
            "request_time": time,
            "item_id": "i",
            "ad_id": ad_id,
            "price_paid": price,
            **request,
        }

    zone = Manifest(time_zone="Europe/Berlin")
    landing.write_manifest(zone)
    of_day = [shown(1, "a", 0, 1.0), shown(2, "a", 1, 2.0), shown(3, "b", 1, None), shown(4, None, 1, 9.0)]
    late = [shown(5, "a", 10, 4.0), shown(6, "b", 12, 8.0)]  # 23:00 and 01:00 in Berlin
    arrive(landing, tables, LandingTable.impressions, DAY, of_day)
    arrive(landing, tables, LandingTable.impressions, NEXT, [shown(1, "a", 0, 1.5), *late])
    hour, end = timedelta(hours=1), NOON + timedelta(days=2)

    def spent(instant: datetime, since: date = DAY) -> list[tuple[str, date, float]]:
        return spend_as_of(tables, landing, instant, since).rows()

    assert spent(NOON) == []
    assert spent(NOON + hour) == [("a", DAY, 1.0)]
    assert spent(NOON + 2 * hour) == [("a", DAY, 3.0)]
    assert spent(end) == [("a", DAY, 7.5), ("b", NEXT, 8.0)]  # the first impression arrived again, with a click
    assert spent(end, NEXT) == [("b", NEXT, 8.0)]


def test_impressions_from_before_prices_came_to_be_cost_nothing(landing: Landing, tables: Tables) -> None:
    schema = pl.Schema(SCHEMAS[LandingTable.impressions])
    assert spend_as_of(tables, landing, NOON, DAY).is_empty()  # never ingested
    row = {"request_id": "r", "request_time": NOON, "user_id": "u", "surface": "search", "item_id": "a"}
    before = pl.DataFrame([{**row, "stage": "clicked"}], schema=schema)
    tables.write("impressions", before.drop("ad_id", "propensity", "price_paid", "value"), {"arrival_date": DAY})
    assert spend_as_of(tables, landing, NOON + timedelta(hours=1), DAY).is_empty()

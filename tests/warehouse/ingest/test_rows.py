"""What becomes of each row: kept, a duplicate, or quarantined with its reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from settings import DataSettings
from tests.warehouse.ingest.arrivals import (
    DAY,
    EVENTS,
    NOON,
    TOLERANT,
    arrive,
    event,
    ids,
    write_text,
)
from warehouse.contracts import MAXIMUM_ID_BYTES, LandingTable
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import QuarantineExceeded, ingest
from warehouse.ingest.validate_rows import NOT_AFTER_ARRIVAL
from warehouse.landing import Landing
from warehouse.tables import Tables

BROKEN = [
    (event(None), "event_id is not null"),
    (event("x", user_id=""), "user_id is not empty"),
    (event("x", user_id="u" * 10_000), f"user_id has at most {MAXIMUM_ID_BYTES} bytes"),
    (event("x", event_name="purchase"), "event_name is known"),
    (event("x", value=-0.5), "value is not below its minimum"),
    (event("x", value=float("inf")), "value is finite"),
    (event("x", item_id=None), "names an item or an advertiser or is a search"),
    (event("x", event_time=datetime(2026, 3, 12, 0, 0, 1, tzinfo=UTC)), NOT_AFTER_ARRIVAL),
]


@pytest.mark.parametrize(("bad", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_a_bad_row_is_quarantined_with_its_reason_and_the_others_stay(
    landing: Landing, tables: Tables, bad: dict[str, Any], reason: str
) -> None:
    arrive(landing, [event("1"), bad, event("2")])
    report = ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    assert ids(tables) == ["1", "2"]
    assert report.quarantined == {reason: 1}
    assert report.quarantine_share == pytest.approx(1 / 3)
    [row] = tables.read("quarantine_events", {"arrival_date": DAY}).to_dicts()
    assert (row["file"], row["row"], row["reason"]) == ("events/date=2026-03-10/part-0.parquet", 2, reason)
    user = bad["user_id"]
    key = None if user is None else UserKeys.of(tables, landing).key(user)
    assert json.loads(row["content"])["user_id"] == row["user_id"] == key


def test_every_broken_rule_of_a_row_is_named_and_unreadable_values_keep_their_text(
    landing: Landing, tables: Tables
) -> None:
    text = "event_id,user_id,event_time,event_name,item_id,value,colour\n1,,yesterday,bought,i,much,red\n"
    write_text(landing, "a.csv", text)
    report = ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    [row] = tables.read("quarantine_events", {"arrival_date": DAY}).to_dicts()
    for rule in ("event_time can be read as a time", "event_name is known", "user_id is not null"):
        assert rule in row["reason"]
    content = json.loads(row["content"])
    assert (content["event_time"], content["value"], content["colour"]) == ("yesterday", "much", "red")
    assert report.rows_quarantined == report.rows_read == 1
    assert report.ignored_columns == ("colour",)


def test_nothing_is_lost(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1"), event("1"), *[bad for bad, _ in BROKEN], event("2"), event("3")])
    arrive(landing, [event("2"), event("4", value=-1.0)], part="part-1")
    report = ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    assert report.rows_read == report.rows_written + report.duplicates + report.rows_quarantined == len(BROKEN) + 6
    assert report.duplicates == 2
    assert tables.read("quarantine_events", {"arrival_date": DAY}).height == report.rows_quarantined


def test_too_many_bad_rows_stop_the_day_and_leave_its_previous_rows(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    arrive(landing, [event("2"), event("bad", value=-5.0)])
    with pytest.raises(QuarantineExceeded) as error:
        ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings(maximum_quarantine_share=0.49))
    for part in ("events/date=2026-03-10/part-0.parquet", "'value is not below its minimum'", "row 2", '"value":-5.0'):
        assert part in str(error.value)
    assert ids(tables) == ["1"]
    assert tables.read("quarantine_events", {"arrival_date": DAY}).height == 1
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings(maximum_quarantine_share=0.5))
    assert ids(tables) == ["2"]


def test_of_duplicates_the_earliest_stays_then_the_first_read(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1", value=1.0), event("2", value=1.0)], part="a")
    later, earlier = NOON, NOON - timedelta(hours=1)
    arrive(landing, [event("1", value=2.0, event_time=earlier), event("2", value=2.0, event_time=later)], part="b")
    report = ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    rows = tables.read("events", {"arrival_date": DAY})
    assert dict(rows.select("event_id", "value").iter_rows()) == {"1": 2.0, "2": 1.0}
    assert report.duplicates == 2


def test_duplicates_resolve_to_the_earliest_arrival_whatever_the_order_of_ingestion(
    landing: Landing, tables: Tables
) -> None:
    days = [DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)]
    for day in days:
        arrive(landing, [event("same"), event(f"only {day}")], day)
    for day in (*days, *days):
        ingest(landing, tables, EVENTS, day=day, settings=DataSettings())
        ingest(landing, tables, EVENTS, day=days[0], settings=DataSettings())
    assert [ids(tables, day) for day in days] == [
        [f"only {days[0]}", "same"],
        [f"only {days[1]}"],
        [f"only {days[2]}"],
    ]


def test_users_share_an_event_id_and_lose_nothing(landing: Landing, tables: Tables) -> None:
    """Neither within an arrival nor across arrivals."""
    before = DAY - timedelta(days=1)
    arrive(landing, [event("1", user_id="ann"), event("1", user_id="bob"), event("1", user_id="ann")], before)
    arrive(landing, [event("1", user_id="ann"), event("1", user_id="cem"), event("2", user_id="ann")])
    reports = [ingest(landing, tables, EVENTS, day=day, settings=DataSettings()) for day in (before, DAY)]
    assert [(report.rows_written, report.duplicates) for report in reports] == [(2, 1), (2, 1)]
    keys = UserKeys.of(tables, landing)
    kept = tables.scan("events").select("user_id", "event_id").collect().rows()
    assert sorted(kept) == sorted(
        [(keys.key(user), number) for user, number in [("ann", "1"), ("bob", "1"), ("cem", "1"), ("ann", "2")]]
    )


def test_all_duplicates_leave_an_empty_day(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1"), event("2")], DAY - timedelta(days=1))
    arrive(landing, [event("1"), event("2"), event("2")])
    ingest(landing, tables, EVENTS, day=DAY - timedelta(days=1), settings=DataSettings())
    report = ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    assert (report.rows_written, report.duplicates) == (0, 3)


def test_impressions_are_told_apart_by_request_and_item(landing: Landing, tables: Tables) -> None:
    row = {"request_time": NOON, "user_id": "u", "surface": "search", "stage": "clicked"}
    keys = [("r", "a"), ("r", "b"), ("r", "a"), ("s", "a")]
    landing.write(
        LandingTable.impressions, DAY, pl.DataFrame([{"request_id": r, "item_id": i, **row} for r, i in keys])
    )
    report = ingest(landing, tables, LandingTable.impressions, day=DAY, settings=DataSettings())
    assert (report.rows_written, report.duplicates) == (3, 1)


def ad(ad_id: str | None, **fields: Any) -> dict[str, Any]:
    return {"ad_id": ad_id, "item_id": "i", "bid": "0.5", "bid_kind": "cpc", "daily_budget": "10", **fields}


BROKEN_ADS = [
    (ad("x", item_id=None), "item_id is not null"),
    (ad("x", bid="-1"), "bid is not below its minimum"),
    (ad("x", bid_kind="cpx"), "bid_kind is known"),
    (ad("x", daily_budget="-1"), "daily_budget is not below its minimum"),
    (ad("x", starts="tomorrow"), "starts can be read as a time (ISO 8601)"),
    (ad("x", countries="DE"), "countries can be read as a list (JSON)"),
    (ad("x", daily_budget="ten"), "daily_budget can be read as a number"),  # not: spends without a limit
]


@pytest.mark.parametrize(("bad", "reason"), BROKEN_ADS, ids=[reason for _, reason in BROKEN_ADS])
def test_a_bad_ad_is_quarantined_with_its_reason(
    landing: Landing, tables: Tables, bad: dict[str, Any], reason: str
) -> None:
    good = ad("1", starts="2026-03-10", countries='["DE"]', bid="much")
    write_text(landing, "a.jsonl", "\n".join(map(json.dumps, (good, bad))), LandingTable.ads)
    report = ingest(landing, tables, LandingTable.ads, day=DAY, settings=TOLERANT)
    assert report.quarantined == {reason: 1}
    assert report.lost_numbers == {"bid": 1}
    [kept] = tables.read("ads", {"arrival_date": DAY}).to_dicts()
    assert (kept["ad_id"], kept["bid"], kept["countries"], kept["ends"]) == ("1", None, ["DE"], None)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"propensity": 0.0}, "propensity is above its minimum"),
        ({"propensity": 1.5}, "propensity is not above its maximum"),
        ({"price_paid": -0.1}, "price_paid is not below its minimum"),
        ({"value": -0.1}, "value is not below its minimum"),
    ],
)
def test_a_propensity_is_a_probability_above_zero_and_nobody_pays_less_than_nothing(
    landing: Landing, tables: Tables, field: dict[str, float], reason: str
) -> None:
    row = {"request_id": "r", "request_time": NOON, "user_id": "u", "surface": "search", "stage": "clicked"}
    good = {**row, "item_id": "a", "ad_id": "1", "propensity": 1.0, "price_paid": 0.0, "value": 2.0}
    bad = {**good, "item_id": "b", **field}
    landing.write(LandingTable.impressions, DAY, pl.DataFrame([good, bad]))
    report = ingest(landing, tables, LandingTable.impressions, day=DAY, settings=TOLERANT)
    assert report.quarantined == {reason: 1}
    [kept] = tables.read("impressions", {"arrival_date": DAY}).to_dicts()
    assert (kept["ad_id"], kept["propensity"], kept["price_paid"], kept["value"]) == ("1", 1.0, 0.0, 2.0)

"""Public logs in their own formats: fixtures written by hand from their documentation, and real data where it is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from settings import DataSettings
from tests.warehouse.importers.test_importers import real
from warehouse.contracts import LandingTable
from warehouse.importers.complete_journey import import_complete_journey
from warehouse.importers.landing_writer import SourceError
from warehouse.importers.pinterest_conversions import import_pinterest_conversions
from warehouse.importers.rees46 import import_rees46
from warehouse.importers.retailrocket import import_retailrocket
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables


def ingested(
    landing: Landing, tables: Tables, wanted: Collection[LandingTable] = tuple(LandingTable)
) -> dict[str, pl.DataFrame]:
    """Every wanted table that has files, after all of its days; nothing may be quarantined."""
    for day in (None, *landing.dates()):
        for table in [table for table in wanted if landing.files(table, day)]:
            report = ingest(landing, tables, table, day=day, settings=DataSettings(maximum_quarantine_share=1))
            assert report.quarantined == {}
    return {table.value: tables.scan(table.value).collect() for table in LandingTable if tables.exists(table.value)}


REES46 = """event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde
2019-10-01 00:10:00 UTC,cart,3900821,2053013552326770905,home.heater,,33.20,541312140,72d76fde
2019-10-01 00:11:00 UTC,remove_from_cart,3900821,2053013552326770905,home.heater,,33.20,541312140,72d76fde
2019-10-02 00:00:00 UTC,purchase,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde
"""


def test_rees46(tmp_path: Path, landing: Landing, tables: Tables) -> None:
    source = tmp_path / "rees46"
    source.mkdir()
    with pytest.raises(SourceError, match=r"holds no \*\.csv"):
        import_rees46(source, landing, 1)
    (source / "2019-Oct.csv.gz").write_bytes(gzip.compress(REES46.encode()))
    summary = import_rees46(source, landing, 1)
    assert summary.unused == ("category_id", "user_session")
    found = ingested(landing, tables)
    events = found["events"].sort("event_time")
    assert events["event_name"].to_list() == ["page_visit", "add_to_cart", "remove_from_cart", "checkout"]
    assert events["advertiser_id"].to_list() == ["shiseido", "unknown", "unknown", "shiseido"]
    items = dict(found["items"].select("item_id", "category").iter_rows())
    assert items == {"44600062": None, "3900821": "home > heater"}


def test_the_real_rees46_sample_is_read(tmp_path: Path, landing: Landing) -> None:
    with pytest.raises(SourceError, match="1 days with events"):  # of three hours
        import_rees46(real("rees46-sample"), landing, 1)


@pytest.mark.slow
def test_the_real_complete_journey(landing: Landing, tables: Tables) -> None:
    summary = import_complete_journey(real("complete-journey"), landing)
    assert (summary.events, summary.users, summary.items) == (77_102, 2_377, 92_331)
    assert (summary.ads, summary.impressions) == (111_316, 29_524)
    found = ingested(landing, tables)
    assert found["events"]["event_id"].n_unique() == 77_102
    assert set(found["events"]["event_name"]) == {"checkout", "custom"}
    assert found["users"].drop_nulls("age").height == 801
    assert found["items"].filter(item_id="25671")["category"].item() == "GROCERY > FRZN ICE > ICE - CRUSHED/CUBED"
    shown = found["impressions"].join(found["ads"], on="ad_id", suffix="_of_the_ad")
    assert shown.height == found["impressions"].height == 29_524
    assert shown.filter(pl.col("item_id") != pl.col("item_id_of_the_ad")).is_empty()
    assert shown.filter(~pl.col("request_time").is_between("starts", "ends", closed="left")).is_empty()


def millis(day: int, hour: int = 12) -> int:
    return int(datetime(2015, 6, day, hour, tzinfo=UTC).timestamp() * 1000)


def test_retailrocket(tmp_path: Path, landing: Landing, tables: Tables) -> None:
    source = tmp_path / "retailrocket"
    source.mkdir()
    files = {
        "events.csv": [
            "timestamp,visitorid,event,itemid,transactionid",
            f"{millis(1)},257597,view,355908,",
            f"{millis(2)},257597,addtocart,355908,",
            f"{millis(3)},257597,transaction,355908,4000",
            f"{millis(3, 13)},992329,view,248676,",
        ],
        "item_properties_part1.csv": [
            "timestamp,itemid,property,value",
            f"{millis(1)},355908,categoryid,1173",
            f"{millis(1)},355908,available,1",
            f"{millis(1)},355908,790,n552.000 639502",
        ],
        "item_properties_part2.csv": ["timestamp,itemid,property,value", f"{millis(3)},355908,available,0"],
        "category_tree.csv": ["categoryid,parentid", "1173,805", "805,", "809,809"],
    }
    for name, lines in files.items():
        (source / name).write_text("\n".join(lines) + "\n")
    summary = import_retailrocket(source, landing, 1)
    assert (summary.events, summary.users, summary.items, summary.days) == (4, 2, 2, (date(2015, 6, 3),))
    found = ingested(landing, tables)
    assert found["events"].sort("event_time")["event_name"].to_list() == [
        *("page_visit", "add_to_cart", "checkout", "page_visit")
    ]
    chair = found["items"].filter(item_id="355908").sort("arrival_date")
    assert chair.select("category", "availability").rows() == [
        ("c805 > c1173", "in stock"),
        ("c805 > c1173", "out of stock"),
    ]
    (source / "category_tree.csv").unlink()
    with pytest.raises(SourceError, match=r"category_tree\.csv does not exist"):
        import_retailrocket(source, landing, 1)


def conversion(name: str, day: int, event_id: str, user: Mapping[str, object], **custom: object) -> dict[str, object]:
    return {
        "event_name": name,
        "action_source": "web",
        "event_time": int(datetime(2026, 3, day, 10, tzinfo=UTC).timestamp()),
        "event_id": event_id,
        "user_data": user,
        "custom_data": custom,
    }


def test_pinterest_conversions(tmp_path: Path, landing: Landing, tables: Tables) -> None:
    source = tmp_path / "conversions"
    source.mkdir()
    ann, bob = {"external_id": ["a1"], "em": ["411e44ce"]}, {"em": ["09a0f1c2"]}
    contents = [
        {"id": "red-pants-1", "item_price": "1325.12", "item_name": "Pants", "item_brand": "my-brand", "quantity": 5},
        {"id": "tie-2", "item_category": "Men > Ties"},
    ]
    events = [
        conversion("checkout", 1, "e1", ann, currency="USD", value="72.39", contents=contents),
        conversion("add_to_cart", 2, "e2", bob, content_ids=["tie-2"], content_name="Tie", value=9),
        conversion("search", 2, "e3", bob, search_string="shoes"),
        conversion("add_payment_info", 3, "e4", ann),
        conversion("page_visit", 3, "e5", {}),
    ]
    (source / "a.json").write_text(json.dumps({"data": events[:2]}))
    (source / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, events[2:])).encode()))
    summary = import_pinterest_conversions(source, landing, 1, "549755885175")
    assert (summary.events, summary.left_out) == (5, {"nobody can say whose they are": 1})
    assert "1 events left out: nobody can say whose they are" in summary.lines()
    found = ingested(landing, tables)
    rows = found["events"].sort("event_id").select("event_id", "event_name", "advertiser_id", "item_id", "value").rows()
    assert rows == [
        ("e1-0", "checkout", "my-brand", "red-pants-1", 1325.12),
        ("e1-1", "checkout", "549755885175", "tie-2", 72.39),
        ("e2", "add_to_cart", "549755885175", "tie-2", 9.0),
        ("e3", "search", "549755885175", None, None),
        ("e4", "custom", "549755885175", None, None),
    ]
    tie = found["items"].filter(item_id="tie-2").row(0, named=True)
    assert (tie["title"], tie["category"]) == ("Tie", "Men > Ties")
    assert found["events"]["user_id"].n_unique() == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"data": [{"event_name": "checkout"}]}', "event_name and event_time"),
        ("a.jsonl", '{"event_name": "lead", "event_time": 1}\n{"event_name', "line 2: not JSON"),
        ("a.txt", "", "holds no file that ends in"),
    ],
)
def test_what_is_no_conversion_is_named(tmp_path: Path, landing: Landing, name: str, text: str, message: str) -> None:
    source = tmp_path / "conversions"
    source.mkdir()
    (source / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        import_pinterest_conversions(source, landing)
    assert not landing.root.exists()


SHAPES: dict[str, dict[str, Any]] = {
    "ids as text": {"content_ids": "s{n}"},
    "ids as JSON text": {"content_ids": '["s{n}"]'},
    "contents as JSON text": {"contents": '[{{"id": "s{n}"}}]'},
    "contents as ids": {"contents": ["s{n}"]},
    "contents as one product": {"contents": {"id": "s{n}"}},
    "ids beside contents": {"content_ids": ["s{n}"], "contents": [{"item_price": "1,299.50", "quantity": 2}]},
}


def filled(value: object, n: int) -> object:
    if isinstance(value, str):
        return value.format(n=n)
    if isinstance(value, list):
        return [filled(each, n) for each in value]
    return {key: filled(each, n) for key, each in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_conversions_in_any_shape(tmp_path: Path, landing: Landing, tables: Tables, shape: str) -> None:
    """Two products of one user in one second, times in seconds, milliseconds and ISO, names as the tag writes them."""
    source = tmp_path / "conversions"
    source.mkdir()
    names = ["AddToCart", "addtocart", "add_to_cart", "PageVisit"]
    events = []
    for n in range(12):
        event = conversion(names[n % 4], 1 + n // 4, "", {"external_id": "u"}, **SHAPES[shape])
        event["custom_data"] = filled(event["custom_data"], n)
        seconds = event["event_time"]
        assert isinstance(seconds, int)
        event["event_time"] = [seconds, seconds * 1000, str(seconds), "2026-03-02T10:00:00Z"][n % 4]
        events.append(event)
    (source / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n".join(map(json.dumps, events)).encode())
    summary = import_pinterest_conversions(source, landing, 1)
    assert (summary.events, summary.items) == (12, 12)
    found = ingested(landing, tables, [LandingTable.events])["events"]
    assert sorted(found["item_id"]) == sorted(f"s{n}" for n in range(12))
    assert found["event_id"].n_unique() == 12
    assert dict(found["event_name"].value_counts().iter_rows()) == {"add_to_cart": 9, "page_visit": 3}
    assert found["event_time"].dt.year().unique().to_list() == [2026]
    if shape == "ids beside contents":
        assert found["value"].unique().to_list() == [1299.5]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"event_time": "yesterday"}, "a.jsonl, line 1: event_time is seconds since 1970 or a time"),
        ({"custom_data": {"content_ids": [{"id": 1}]}}, "a.jsonl, line 1: content_ids is a list of ids"),
        ({"custom_data": {"contents": [{"id": ["a"]}]}}, "a.jsonl, line 1: contents is a list of products"),
        ({"custom_data": "none"}, "a.jsonl, line 1: custom_data is an object"),
        ({"user_data": [1]}, "a.jsonl, line 1: user_data is an object"),
    ],
)
def test_a_field_of_a_conversion_that_is_something_else_is_named(
    tmp_path: Path, landing: Landing, fields: dict[str, object], message: str
) -> None:
    source = tmp_path / "conversions"
    source.mkdir()
    lines = [conversion("checkout", 1, "e", {"external_id": "u"}) | fields, conversion("checkout", 2, "f", {})]
    (source / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(SourceError, match=message):
        import_pinterest_conversions(source, landing)


def test_a_conversion_of_no_time_is_left_out_and_counted(tmp_path: Path, landing: Landing) -> None:
    source = tmp_path / "conversions"
    source.mkdir()
    lines = [conversion("checkout", day, f"e{day}", {"external_id": "u"}) for day in (1, 2, 3)]
    (source / "a.jsonl").write_text("\n".join(map(json.dumps, [*lines, lines[0] | {"event_time": 0}])))
    summary = import_pinterest_conversions(source, landing, 1)
    assert (summary.events, summary.left_out) == (3, {"their time is before 1990 or after 2100": 1})

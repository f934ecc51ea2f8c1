"""Anybody's export through a mapping into the landing zone, and through ingestion."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from settings import DataSettings
from warehouse.contracts import LandingTable
from warehouse.importers.landing_writer import SourceError
from warehouse.importers.mapping import Mapping, MappingError
from warehouse.importers.mapping_sketch import sketch
from warehouse.importers.tabular import import_tables
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

HEADER = "when,who,what,sku,brand,path,price\n"
ROWS = [
    "01.03.2026 23:30,ann,view,i1,Nord,home.furniture.chair,10.5",
    "02.03.2026 00:30,ann,buy,i1,Nord,home.furniture.chair,9.5",
    "02.03.2026 09:00,bob,view,i2,,,3",
    "03.03.2026 10:00,bob,buy,i2,,,x",
    "someday,cid,view,i3,Nord,garden,1",
]
MEMORY = 0.25  # GiB
EVENTS = {
    "user_id": "who",
    "event_time": {"column": "when", "format": "%d.%m.%Y %H:%M"},
    "event_name": {"column": "what", "values": {"view": "page_visit", "buy": "checkout"}},
    "item_id": "sku",
    "advertiser_id": {"column": "brand", "default": "unknown"},
    "value": "price",
    "currency": {"constant": "EUR"},
}
ITEMS = {"item_id": "sku", "advertiser_id": "brand", "category": {"column": "path", "separator": "."}}


def mapping(events: dict[str, Any] = EVENTS, **log: Any) -> Mapping:
    tables = [{"into": "events", "columns": events}, {"into": "items", "columns": ITEMS}]
    return Mapping.model_validate({"log": {"daily_days": 1, "time_zone": "Europe/Berlin", **log}, "table": tables})


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "export.csv"
    path.write_text(HEADER + "\n".join(ROWS) + "\n")
    return path


def landed(landing: Landing, table: LandingTable, day: date | None) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in landing.files(table, day)])


def test_by_hand(export: Path, landing: Landing, tables: Tables) -> None:
    summary = import_tables([export], mapping(), landing, MEMORY)
    assert (summary.rows, summary.undated) == ({LandingTable.events: 5, LandingTable.items: 3}, 1)
    assert summary.days == (date(2026, 3, 3),)
    assert landing.manifest.time_zone == "Europe/Berlin"
    reports = [ingest(landing, tables, LandingTable.events, day=day, settings=LENIENT) for day in (None, *summary.days)]
    assert [report.quarantined for report in reports] == [
        {"event_time can be read as a time (ISO 8601)": 1},
        {},
    ]
    assert [report.lost_numbers for report in reports] == [{}, {"value": 1}]
    events = tables.scan("events").sort("event_time").collect()
    # Half an hour past midnight in Berlin is half past eleven in UTC.
    assert events["event_time"].to_list() == [
        datetime(2026, 3, 1, 22, 30, tzinfo=UTC),
        datetime(2026, 3, 1, 23, 30, tzinfo=UTC),
        datetime(2026, 3, 2, 8, 0, tzinfo=UTC),
        datetime(2026, 3, 3, 9, 0, tzinfo=UTC),
    ]
    assert events["event_name"].to_list() == ["page_visit", "checkout", "page_visit", "checkout"]
    assert events["value"].to_list() == [10.5, 9.5, 3.0, None]
    assert events["advertiser_id"].to_list() == ["Nord", "Nord", "unknown", "unknown"]
    assert set(events["currency"]) == {"EUR"}
    assert events["event_id"].n_unique() == 4
    ingest(landing, tables, LandingTable.items, day=None, settings=LENIENT)
    items = dict(tables.scan("items").select("item_id", "category").collect().iter_rows())
    assert items == {"i1": "home > furniture > chair", "i2": None, "i3": "garden"}


LENIENT = DataSettings(maximum_quarantine_share=1)


def test_every_format_gives_the_same(export: Path, landing: Landing, tmp_path: Path) -> None:
    import_tables([export], mapping(), landing, MEMORY)
    frame = pl.read_csv(export, infer_schema=False)
    others = {
        "export.csv.gz": gzip.compress(export.read_bytes()),
        "export.jsonl": "".join(json.dumps(row) + "\n" for row in frame.to_dicts()).encode(),
        "export.jsonl.gz": gzip.compress("".join(json.dumps(row) + "\n" for row in frame.to_dicts()).encode()),
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    frame.write_parquet(tmp_path / "export.parquet")
    for name in (*others, "export.parquet"):
        other = Landing(tmp_path / f"landing of {name}")
        import_tables([tmp_path / name], mapping(), other, MEMORY)
        for table in (LandingTable.events, LandingTable.items):
            for day in (None, date(2026, 3, 3)):
                expected, found = (
                    landed(each, table, day).sort("item_id", *([] if table is LandingTable.items else ["event_time"]))
                    for each in (landing, other)
                )
                own = ("event_id", "source_file")  # of a file
                assert (
                    found.drop(own, strict=False)
                    .drop("source_row")
                    .equals(expected.drop(own, strict=False).drop("source_row"))
                ), name


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("when", "2026-03-01 10:00:00 UTC", "2026-03-01T10:00:00.000000Z"),
        ("when", "2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00.000000Z"),
        ("when", "2026-03-01 10:00", "2026-03-01T09:00:00.000000Z"),
        ("when", "2026-03-01", "2026-02-28T23:00:00.000000Z"),
        ({"column": "when", "unit": "s"}, "1772359200", "2026-03-01T10:00:00.000000Z"),
        ({"column": "when", "unit": "s"}, "1772359200.5", "2026-03-01T10:00:00.500000Z"),
        ({"column": "when", "unit": "ms"}, "1772359200123", "2026-03-01T10:00:00.123000Z"),
        ({"column": "when", "unit": "ns"}, "1772359200123456789", "2026-03-01T10:00:00.123456Z"),
        ({"column": "when", "format": "%m/%d/%Y"}, "3/1/2026", "2026-02-28T23:00:00.000000Z"),
        ({"column": "when", "format": "%Y%m%d %H%M%S %z"}, "20260301 100000 +0000", "2026-03-01T10:00:00.000000Z"),
        ("when", "2026-03-29 02:30:00", "2026-03-29T01:30:00.000000Z"),  # the clock jumps over it: by the clock before
        ("when", "2026-10-25 02:30:00", "2026-10-25T00:30:00.000000Z"),  # it comes twice: the first
        ("when", "soon", "soon"),
    ],
)
def test_times(landing: Landing, tmp_path: Path, source: Any, text: str, expected: str) -> None:
    path = tmp_path / "times.csv"
    others = ["2026-01-01 00:00:00 UTC", "2026-01-02 00:00:00 UTC"] if isinstance(source, str) else []
    if isinstance(source, dict) and "unit" in source:
        per = {"s": 1, "ms": 10**3, "ns": 10**9}[source["unit"]]
        others = [str(1767225600 * per), str(1767312000 * per)]
    if isinstance(source, dict) and "format" in source:
        days = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
        others = [day.strftime(source["format"]) for day in days]
    path.write_text("who,when\n" + "".join(f"u,{value}\n" for value in [text, *others]))
    events = {"user_id": "who", "event_time": source, "event_name": {"constant": "custom"}}
    only = Mapping.model_validate(
        {"log": {"daily_days": 1, "time_zone": "Europe/Berlin"}, "table": [{"into": "events", "columns": events}]}
    )
    summary = import_tables([path], only, landing, MEMORY)
    found = pl.concat([landed(landing, LandingTable.events, day) for day in (None, *summary.days)])
    assert expected in found["event_time"].to_list()


def test_nothing_is_left_of_an_import_that_fails(export: Path, landing: Landing) -> None:
    with pytest.raises(MappingError, match="to come from column 'nobody'"):
        import_tables([export], mapping(EVENTS | {"user_id": "nobody"}), landing, MEMORY)
    with pytest.raises(SourceError, match="3 days with events, and 3 of them"):
        import_tables([export], mapping(daily_days=3), landing, MEMORY)
    with pytest.raises(SourceError, match="cannot be read"):
        import_tables([_broken(export)], mapping(), landing, MEMORY)
    assert not landing.root.exists()


def test_a_gzip_that_ends_early_is_not_imported(export: Path, landing: Landing) -> None:
    """Polars takes it for one that ends, and loses the rest."""
    path = export.with_name("early.csv.gz")
    path.write_bytes(gzip.compress(export.read_bytes())[:-12])
    with pytest.raises(SourceError, match=r"early\.csv\.gz cannot be read"):
        import_tables([path], mapping(), landing, MEMORY)
    assert not landing.root.exists()


def _broken(export: Path) -> Path:
    path = export.with_name("broken.csv.gz")
    path.write_bytes(gzip.compress(export.read_bytes() * 1000)[:200])
    return path


BAD = [
    ("[[table]]\ninto = 'events'\n[table.columns]\nuser_id = 'u'\n", "events needs 'event_time'"),
    ("[[table]]\ninto = 'items'\n[table.columns]\nitem_id = 'i'\n", "one \\[\\[table\\]\\] has to be into = 'events'"),
    ("[[table]]\ninto = 'events'\n[table.columns]\nuser = 'u'\n", "'user' is no column of events"),
    ("[[table]]\ninto = 'event'\n[table.columns]\n", "table.0.into"),
    ("table = 'events", "not valid TOML"),
    ("[[table]]\ninto='events'\n[table.columns]\nuser_id={column='u', constant='v'}\n", "give one of column"),
    ("[log]\ndays = 3\n", "log.days"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_mapping_that_breaks_a_rule_says_which(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    with pytest.raises(MappingError, match=message) as error:
        Mapping.read(path)
    assert str(path) in str(error.value)


def test_a_sketch_is_a_mapping_that_works(landing: Landing, tmp_path: Path) -> None:
    path = tmp_path / "shop export.csv"
    path.write_text(
        "timestamp,customer_id,event,product_id,brand,category,price,colour\n"
        "1772359200000,c1,view,p1,Nord,Home/Chair,10,red\n"
        "1772445600000,c1,addtocart,p1,Nord,Home/Chair,10,red\n"
        "1772532000000,c2,purchase,p2,,,5,blue\n"
        "1772618400000,c2,wishlist,p2,,,5,blue\n"
    )
    text = sketch(path)
    assert "#   colour: e.g. " in text
    written = tmp_path / "mapping.toml"
    written.write_text(text.replace("daily_days = 3", "daily_days = 1"))
    import_tables([path], Mapping.read(written), landing, MEMORY)
    events = pl.concat([landed(landing, LandingTable.events, day) for day in (None, date(2026, 3, 4))])
    assert events.sort("event_time")["event_name"].to_list() == ["page_visit", "add_to_cart", "checkout", "custom"]
    assert landed(landing, LandingTable.items, None)["category"].to_list() == ["Home > Chair", None]
    assert landing.manifest.positive_events == ["checkout", "add_to_cart"]

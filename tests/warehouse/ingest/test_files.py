"""The formats of landed files, and files that cannot be used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from settings import DataSettings
from tests.warehouse.ingest.arrivals import (
    DAY,
    EVENTS,
    ITEMS,
    NOON,
    TOLERANT,
    arrive,
    as_csv,
    as_json_lines,
    event,
    ids,
    write_text,
)
from warehouse.contracts import LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.ingest.read import LandingError, read_arrival
from warehouse.landing import Landing, Manifest
from warehouse.tables import Tables


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", as_csv),
        ("a.csv.gz", as_csv),
        ("a.jsonl", as_json_lines),
        ("a.jsonl.gz", as_json_lines),
        ("a.ndjson", as_json_lines),
    ],
)
def test_text_formats_give_the_rows_of_parquet(
    landing: Landing, tables: Tables, tmp_path: Path, name: str, write: Callable[[list[dict[str, Any]]], str]
) -> None:
    rows = [
        event("1"),
        event("2", value=None, search_string="ein Zelt, größer"),
        event("3", item_id=None, event_name="search"),
    ]
    other, other_tables = Landing(tmp_path / "other"), Tables(tmp_path / "other-tables")
    for each in (landing, other):
        each.write_manifest(Manifest(synthetic=True))  # the same keys in both
    arrive(landing, rows)
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    write_text(other, name, write(rows))
    report = ingest(other, other_tables, EVENTS, day=DAY, settings=DataSettings())
    assert (report.rows_read, report.rows_written, report.files) == (3, 3, 1)
    expected = tables.read("events", {"arrival_date": DAY})
    assert_frame_equal(other_tables.read("events", {"arrival_date": DAY}), expected)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-10T12:00:00Z", 12.0),
        ("2026-03-10T12:00:00", 12.0),
        ("2026-03-10 12:00:00.250 UTC", 12.0 + 0.25 / 3600),
        ("2026-03-10T12:00:00+02:00", 10.0),
        ("2026-03-10 12:00:00-0130", 13.5),
        ("2026-03-10T12:00Z", 12.0),
        ("2026-03-10", 0.0),
    ],
)
def test_times_as_text_are_utc_unless_they_say_otherwise(
    landing: Landing, tables: Tables, text: str, hour: float
) -> None:
    write_text(landing, "a.csv", f"event_id,user_id,event_time,event_name,item_id\n1,u,{text},checkout,i\n")
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    expected = datetime(2026, 3, 10, tzinfo=UTC) + timedelta(hours=hour)
    assert tables.read("events", {"arrival_date": DAY})["event_time"].to_list() == [expected]


def test_naive_and_zoned_parquet_times_become_utc(landing: Landing, tables: Tables) -> None:
    naive = pl.DataFrame([event("naive", event_time=NOON.replace(tzinfo=None))]).cast({"event_time": pl.Datetime("ms")})
    zoned = pl.DataFrame([event("zoned")]).with_columns(pl.col("event_time").dt.convert_time_zone("Asia/Tokyo"))
    landing.write(EVENTS, DAY, naive, "a")
    landing.write(EVENTS, DAY, zoned, "b")
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    assert tables.read("events", {"arrival_date": DAY})["event_time"].to_list() == [NOON, NOON]


def test_a_file_that_is_being_written_is_ignored(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1")])
    write_text(landing, "part-1.parquet.tmp", "half a file")
    write_text(landing, ".part-2.csv", "half a file")
    assert ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings()).files == 1


def _truncated_parquet(path: Path) -> None:
    pl.DataFrame([event(str(number)) for number in range(1000)]).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])


HEADER = "event_id,user_id,event_time,event_name,item_id"


UNUSABLE: list[tuple[str, Callable[[Path], object], str]] = [
    ("bad.parquet", _truncated_parquet, "must be whole"),
    ("bad.parquet", lambda path: path.write_bytes(b""), "must be whole"),
    ("bad.csv", lambda path: path.write_bytes(b""), "must be whole"),
    ("bad.csv", lambda path: path.write_bytes(f"{HEADER}\n1,\xff,,,\n".encode("latin-1")), "UTF-8"),
    (
        "bad.csv",
        lambda path: path.write_text(f'{HEADER}\n1,"u,2026-03-10,checkout,i\n2,u,2026-03-10,checkout,i\n'),
        "must be whole",
    ),
    ("bad.csv.gz", lambda path: path.write_bytes(gzip.compress(HEADER.encode() * 99)[:-12]), "must be whole"),
    ("bad.csv.gz", lambda path: path.write_text(HEADER), "must be whole"),
    (
        "bad.jsonl",
        lambda path: path.write_text('{"event_id":"1","user_id":"u","event_time":"x","event_name":"y"}\n{"event_'),
        "must be whole",
    ),
    (
        "bad.csv",
        lambda path: path.write_text("event_id,event_time,event_name\n1,2026-03-10,checkout\n"),
        "'user_id'.*missing",
    ),
    (
        "bad.jsonl",
        lambda path: path.write_text('{"event_id":"1","event_time":"x","event_name":"y"}\n'),
        "'user_id'.*missing",
    ),
    (
        "bad.parquet",
        lambda path: pl.DataFrame([event("1", event_time=1_700_000_000)]).write_parquet(path),
        "'event_time' has type Int64",
    ),
    ("bad.xlsx", lambda path: path.write_text("?"), "unknown format"),
]


@pytest.mark.parametrize(("name", "write", "message"), UNUSABLE)
def test_an_unusable_file_is_named_and_leaves_the_previous_partition(
    landing: Landing, tables: Tables, name: str, write: Callable[[Path], object], message: str
) -> None:
    path = arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    write(path.parent / name)
    with pytest.raises(LandingError, match=message) as error:
        ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    assert str(path.parent / name) in str(error.value)
    assert ids(tables) == ["1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.csv", f'{HEADER}\n1,"ann@example.org,2026-03-10,checkout,i\n2,u,2026-03-10,checkout,i\n'),
        ("bad.jsonl", '{"event_id": 1, "user_id": "ann@example.org"}\n["ann@example.org", 4711]\n'),
        ("bad.jsonl", '[4711]\n'),
        ("bad.csv", f"{HEADER}\n1,ann@example.org,2026-03-10,checkout,i,too,many\n"),
    ],
)  # fmt: skip
def test_a_message_quotes_nothing_of_a_file(landing: Landing, tables: Tables, name: str, content: str) -> None:
    path = write_text(landing, name, content)
    with pytest.raises(LandingError) as error:
        ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    said = str(error.value).replace(str(path), "")
    assert "ann" not in said
    assert "4711" not in said


def test_items_lists_and_structs_of_text_are_json(landing: Landing, tables: Tables) -> None:
    interests = [{"interest": "camping", "confidence": 0.5}]
    rows = [
        {"item_id": "good", "interests": interests, "embedding": [1, 0.5], "countries": ["DE"], "price": "9.50"},
        {"item_id": "null in it", "embedding": [1, None]},
        {"item_id": "no list", "interests": "camping"},
        {"item_id": "sure", "interests": [{"interest": "camping", "confidence": 1.5}]},
        {"item_id": "kind", "content_type": "hologram"},
        {"item_id": "bare"},
    ]
    write_text(landing, "a.jsonl", "\n".join(map(json.dumps, rows)), ITEMS)
    ingest(landing, tables, ITEMS, day=DAY, settings=TOLERANT)
    items = {row["item_id"]: row for row in tables.read("items", {"arrival_date": DAY}).to_dicts()}
    assert set(items) == {"good", "bare"}
    good = items["good"]
    assert (good["interests"], good["embedding"], good["countries"], good["price"]) == (
        interests,
        [1, 0.5],
        ["DE"],
        9.5,
    )
    reasons = dict(tables.read("quarantine_items", {"arrival_date": DAY}).select("row", "reason").iter_rows())
    assert reasons[2].startswith("each value in embedding is not null")
    assert reasons[3] == "interests can be read as a list (JSON)"
    assert reasons[4] == "each value in interests is not above its maximum"
    assert reasons[5] == "content_type is known"


def test_parquet_fixed_size_embeddings_and_integer_ids_are_read(landing: Landing, tables: Tables) -> None:
    frame = pl.DataFrame(
        {"item_id": [7], "embedding": [[1.0, 2.0]]}, schema={"item_id": pl.Int64, "embedding": pl.Array(pl.Float64, 2)}
    )
    landing.write(ITEMS, DAY, frame)
    ingest(landing, tables, ITEMS, day=DAY, settings=DataSettings())
    row = tables.read("items", {"arrival_date": DAY}).row(0, named=True)
    assert (row["item_id"], row["embedding"], row["title"]) == ("7", [1.0, 2.0], None)


def test_ids_that_only_look_like_text_formulas_are_kept_as_they_are(landing: Landing, tables: Tables) -> None:
    rows = [{"item_id": "=1+1", "title": "<script>alert(1)</script>"}]
    landing.write(ITEMS, DAY, pl.DataFrame(rows))
    ingest(landing, tables, ITEMS, day=DAY, settings=DataSettings())
    assert tables.read("items", {"arrival_date": DAY})["title"].to_list() == ["<script>alert(1)</script>"]


def test_an_embedding_of_another_length_is_quarantined(landing: Landing, tables: Tables) -> None:
    """Most of the first arrival say how long they are, and the catalogue says it from then on."""
    lines = ['{"item_id": "a", "embedding": [1, 2]}', '{"item_id": "b", "embedding": [3, 4]}', '{"item_id": "c"}']
    write_text(landing, "a.jsonl", "\n".join([*lines, '{"item_id": "d", "embedding": [1, 2, 3]}']), ITEMS)
    report = ingest(landing, tables, ITEMS, day=DAY, settings=TOLERANT)
    assert report.quarantined == {"embedding has 2 numbers, as the others have": 1}
    assert sorted(tables.read("items", {"arrival_date": DAY})["item_id"]) == ["a", "b", "c"]
    later = DAY + timedelta(days=1)
    folder = landing.folder(ITEMS, later)
    folder.mkdir(parents=True)
    same = [f'{{"item_id": "{name}", "embedding": [1, 2, 3]}}' for name in "ef"]
    (folder / "a.jsonl").write_text("\n".join(same))
    assert ingest(landing, tables, ITEMS, day=later, settings=TOLERANT).rows_written == 0


def test_nan_and_a_byte_order_mark_cost_nothing_but_the_number(landing: Landing, tables: Tables) -> None:
    rows = [as_json_lines([event("1"), event("2")]), as_json_lines([event("3")]).replace("1.0", "NaN")]
    folder = landing.folder(EVENTS, DAY)
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "".join(rows).encode())
    report = ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    values = dict(tables.read("events", {"arrival_date": DAY}).select("event_id", "value").iter_rows())
    assert values == {"1": 1.0, "2": 1.0, "3": None}
    assert report.rows_quarantined == 0


@pytest.mark.parametrize("whole", [2, 10_000])  # of 10,000 lines the next one is read by itself
def test_a_line_that_is_no_json_is_numbered(landing: Landing, whole: int) -> None:
    path = write_text(landing, "a.jsonl", as_json_lines([event("1")]) * whole + '{"event_id": "3", ')
    with pytest.raises(LandingError, match=rf"a\.jsonl: .* line {whole + 1} is not JSON"):
        list(read_arrival(path, EVENTS, batch_bytes=1))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_optional_number_that_cannot_be_read_costs_the_number(landing: Landing, tables: Tables, name: str) -> None:
    users = [{"user_id": "a", "age": "25.0"}, {"user_id": "b", "age": "40"}, {"user_id": "c", "age": "25.5"}]
    users += [{"user_id": "d", "age": "unknown"}, {"user_id": "e", "age": "1000"}]
    text = pl.DataFrame(users).write_csv() if name.endswith(".csv") else pl.DataFrame(users).write_ndjson()
    write_text(landing, name, text, LandingTable.users)
    report = ingest(landing, tables, LandingTable.users, day=DAY, settings=TOLERANT)
    assert report.lost_numbers == {"age": 2}
    assert report.quarantined == {"age is not above its maximum": 1}
    assert sorted(tables.read("users", {"arrival_date": DAY})["age"].drop_nulls()) == [25, 40]


def test_a_time_that_stands_for_unknown_is_quarantined(landing: Landing, tables: Tables) -> None:
    times = [datetime(1970, 1, 1, tzinfo=UTC), NOON]
    arrive(landing, [event(str(n), event_time=time) for n, time in enumerate(times)])
    report = ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    assert report.quarantined == {"event_time is between 1990 and 2100": 1}

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from settings import DataSettings
from warehouse.contracts import MAXIMUM_ID_BYTES, LandingTable
from warehouse.ingest import NOT_AFTER_ARRIVAL, QuarantineExceeded, day_end, ingest
from warehouse.landing import Landing, Manifest
from warehouse.reading import LandingError
from warehouse.tables import Tables

DAY = date(2026, 3, 10)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TOLERANT = DataSettings(maximum_quarantine_share=1.0)
EVENTS, ITEMS = LandingTable.events, LandingTable.items


def event(event_id: str | None, **fields: Any) -> dict[str, Any]:
    defaults = {"user_id": "u", "event_time": NOON, "event_name": "checkout", "item_id": "i", "advertiser_id": None}
    return {"event_id": event_id, **defaults, "value": 1.0, "search_string": None, **fields}


def arrive(landing: Landing, rows: list[dict[str, Any]], day: date | None = DAY, part: str = "part-0") -> Path:
    return landing.write(EVENTS, day, pl.DataFrame(rows, infer_schema_length=None), part)


def write_text(landing: Landing, name: str, text: str, table: LandingTable = EVENTS) -> Path:
    folder = landing.folder(table, DAY)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def ids(tables: Tables, day: date = DAY) -> list[str]:
    return sorted(tables.read("events", {"arrival_date": day})["event_id"])


def as_csv(rows: list[dict[str, Any]]) -> str:
    return pl.DataFrame(rows, infer_schema_length=None).write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ")


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    texts = [{name: str(value) if name == "event_time" else value for name, value in row.items()} for row in rows]
    return "\n".join(json.dumps(row) for row in texts) + "\n"


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
    arrive(landing, rows)
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    other, other_tables = Landing(tmp_path / "other"), Tables(tmp_path / "other-tables")
    write_text(other, name, write(rows))
    report = ingest(other, other_tables, EVENTS, DAY, DataSettings())
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
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    expected = datetime(2026, 3, 10, tzinfo=UTC) + timedelta(hours=hour)
    assert tables.read("events", {"arrival_date": DAY})["event_time"].to_list() == [expected]


def test_naive_and_zoned_parquet_times_become_utc(landing: Landing, tables: Tables) -> None:
    naive = pl.DataFrame([event("naive", event_time=NOON.replace(tzinfo=None))]).cast({"event_time": pl.Datetime("ms")})
    zoned = pl.DataFrame([event("zoned")]).with_columns(pl.col("event_time").dt.convert_time_zone("Asia/Tokyo"))
    landing.write(EVENTS, DAY, naive, "a")
    landing.write(EVENTS, DAY, zoned, "b")
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    assert tables.read("events", {"arrival_date": DAY})["event_time"].to_list() == [NOON, NOON]


BROKEN = [
    (event(None), "event_id is not null"),
    (event("x", user_id=""), "user_id is not empty"),
    (event("x", user_id="u" * 10_000), f"user_id has at most {MAXIMUM_ID_BYTES} bytes"),
    (event("x", event_name="purchase"), "event_name is known"),
    (event("x", value=-0.5), "value is not below its minimum"),
    (event("x", value=float("nan")), "value is not NaN"),
    (event("x", value=float("inf")), "value is finite"),
    (event("x", item_id=None), "names an item or an advertiser or is a search"),
    (event("x", event_time=datetime(2026, 3, 12, 0, 0, 1, tzinfo=UTC)), NOT_AFTER_ARRIVAL),
]


@pytest.mark.parametrize(("bad", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_a_bad_row_is_quarantined_with_its_reason_and_the_others_stay(
    landing: Landing, tables: Tables, bad: dict[str, Any], reason: str
) -> None:
    arrive(landing, [event("1"), bad, event("2")])
    report = ingest(landing, tables, EVENTS, DAY, TOLERANT)
    assert ids(tables) == ["1", "2"]
    assert report.quarantined == {reason: 1}
    assert report.quarantine_share == pytest.approx(1 / 3)
    [row] = tables.read("quarantine_events", {"arrival_date": DAY}).to_dicts()
    assert (row["file"], row["row"], row["reason"]) == ("events/date=2026-03-10/part-0.parquet", 2, reason)
    assert json.loads(row["content"])["user_id"] == bad["user_id"]


def test_every_broken_rule_of_a_row_is_named_and_unreadable_values_keep_their_text(
    landing: Landing, tables: Tables
) -> None:
    text = "event_id,user_id,event_time,event_name,item_id,value,colour\n1,,yesterday,checkout,i,much,red\n"
    write_text(landing, "a.csv", text)
    report = ingest(landing, tables, EVENTS, DAY, TOLERANT)
    [row] = tables.read("quarantine_events", {"arrival_date": DAY}).to_dicts()
    for rule in ("event_time can be read as a time", "value can be read as a number", "user_id is not null"):
        assert rule in row["reason"]
    content = json.loads(row["content"])
    assert (content["event_time"], content["value"], content["colour"]) == ("yesterday", "much", "red")
    assert report.rows_quarantined == report.rows_read == 1
    assert report.ignored_columns == ("colour",)


def test_nothing_is_lost(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1"), event("1"), *[bad for bad, _ in BROKEN], event("2"), event("3")])
    arrive(landing, [event("2"), event("4", value=-1.0)], part="part-1")
    report = ingest(landing, tables, EVENTS, DAY, TOLERANT)
    assert report.rows_read == report.rows_written + report.duplicates + report.rows_quarantined == len(BROKEN) + 6
    assert report.duplicates == 2
    assert tables.read("quarantine_events", {"arrival_date": DAY}).height == report.rows_quarantined


def test_too_many_bad_rows_stop_the_day_and_leave_its_previous_rows(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    arrive(landing, [event("2"), event("bad", value=-5.0)])
    with pytest.raises(QuarantineExceeded) as error:
        ingest(landing, tables, EVENTS, DAY, DataSettings(maximum_quarantine_share=0.49))
    for part in ("events/date=2026-03-10/part-0.parquet", "'value is not below its minimum'", "row 2", '"value":-5.0'):
        assert part in str(error.value)
    assert ids(tables) == ["1"]
    assert tables.read("quarantine_events", {"arrival_date": DAY}).height == 1
    ingest(landing, tables, EVENTS, DAY, DataSettings(maximum_quarantine_share=0.5))
    assert ids(tables) == ["2"]


def test_of_duplicates_the_earliest_stays_then_the_first_read(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1", value=1.0), event("2", value=1.0)], part="a")
    later, earlier = NOON, NOON - timedelta(hours=1)
    arrive(landing, [event("1", value=2.0, event_time=earlier), event("2", value=2.0, event_time=later)], part="b")
    report = ingest(landing, tables, EVENTS, DAY, DataSettings())
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
        ingest(landing, tables, EVENTS, day, DataSettings())
        ingest(landing, tables, EVENTS, days[0], DataSettings())
    assert [ids(tables, day) for day in days] == [
        [f"only {days[0]}", "same"],
        [f"only {days[1]}"],
        [f"only {days[2]}"],
    ]


def test_all_duplicates_leave_an_empty_day(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1"), event("2")], DAY - timedelta(days=1))
    arrive(landing, [event("1"), event("2"), event("2")])
    ingest(landing, tables, EVENTS, DAY - timedelta(days=1), DataSettings())
    report = ingest(landing, tables, EVENTS, DAY, DataSettings())
    assert (report.rows_written, report.duplicates) == (0, 3)


def test_a_day_ingested_twice_has_equal_rows(landing: Landing, tables: Tables) -> None:
    arrive(
        landing,
        [event(str(number), user_id=str(number % 3)) for number in range(20)] + [event("3"), event("x", value=-1.0)],
    )
    reports, frames = [], []
    for _ in range(2):
        reports.append(ingest(landing, tables, EVENTS, DAY, TOLERANT))
        frames.append([tables.read(name, {"arrival_date": DAY}) for name in ("events", "quarantine_events")])
    assert_frame_equal(frames[0][0], frames[1][0])
    assert_frame_equal(frames[0][1], frames[1][1])
    assert reports[0].quarantined == reports[1].quarantined
    assert reports[0].duplicates == reports[1].duplicates == 1


def test_late_is_before_the_local_day_and_never_in_the_history(landing: Landing, tables: Tables) -> None:
    landing.write_manifest(Manifest(time_zone="America/New_York"))  # UTC-4 on this day
    local_midnight = datetime(2026, 3, 10, 4, tzinfo=UTC)
    arrive(
        landing,
        [
            event("before", event_time=local_midnight - timedelta(microseconds=1)),
            event("after", event_time=local_midnight),
        ],
    )
    arrive(landing, [event("old", event_time=NOON - timedelta(days=99))], None)
    assert ingest(landing, tables, EVENTS, None, DataSettings()).late == 0
    assert ingest(landing, tables, EVENTS, DAY, DataSettings()).late == 1
    late = dict(tables.scan("events").select("event_id", "late").collect().iter_rows())
    assert late == {"before": True, "after": False, "old": False}
    assert tables.days("events", "arrival_date") == [DAY - timedelta(days=1), DAY]


@pytest.mark.parametrize(
    ("day", "zone", "end"),
    [
        (DAY, "UTC", datetime(2026, 3, 11, tzinfo=UTC)),
        (DAY, "America/New_York", datetime(2026, 3, 11, 4, tzinfo=UTC)),
        (date(2026, 3, 7), "America/New_York", datetime(2026, 3, 8, 5, tzinfo=UTC)),  # the night of the change
        (date(2017, 10, 15), "Etc/GMT+3", datetime(2017, 10, 16, 3, tzinfo=UTC)),
    ],
)
def test_a_day_ends_at_local_midnight(day: date, zone: str, end: datetime) -> None:
    assert day_end(day, zone) == end


def test_events_within_the_tolerance_after_their_day_are_kept(landing: Landing, tables: Tables) -> None:
    arrive(
        landing,
        [
            event("1", event_time=datetime(2026, 3, 11, 1, tzinfo=UTC)),
            event("2", event_time=datetime(2026, 3, 11, 1, 0, 1, tzinfo=UTC)),
        ],
    )
    ingest(landing, tables, EVENTS, DAY, DataSettings(future_tolerance_hours=1, maximum_quarantine_share=1))
    assert ids(tables) == ["1"]


def test_a_day_without_a_folder_is_an_empty_partition_of_every_table(landing: Landing, tables: Tables) -> None:
    for table in LandingTable:
        report = ingest(landing, tables, table, DAY, DataSettings())
        assert (report.rows_read, report.rows_written, report.files) == (0, 0, 0)
        assert tables.read(table.value, {"arrival_date": DAY}).is_empty()


def test_a_day_whose_files_went_away_becomes_empty(landing: Landing, tables: Tables) -> None:
    path = arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    path.unlink()
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    assert tables.scan("events").collect().is_empty()


def test_a_history_without_a_daily_folder_says_what_to_do(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1")], None)
    with pytest.raises(LandingError, match="no folder named date=YYYY-MM-DD"):
        ingest(landing, tables, EVENTS, None, DataSettings())


def test_a_file_that_is_being_written_is_ignored(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1")])
    write_text(landing, "part-1.parquet.tmp", "half a file")
    write_text(landing, ".part-2.csv", "half a file")
    assert ingest(landing, tables, EVENTS, DAY, DataSettings()).files == 1


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
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    write(path.parent / name)
    with pytest.raises(LandingError, match=message) as error:
        ingest(landing, tables, EVENTS, DAY, DataSettings())
    assert str(path.parent / name) in str(error.value)
    assert ids(tables) == ["1"]


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
    ingest(landing, tables, ITEMS, DAY, TOLERANT)
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
    ingest(landing, tables, ITEMS, DAY, DataSettings())
    row = tables.read("items", {"arrival_date": DAY}).row(0, named=True)
    assert (row["item_id"], row["embedding"], row["title"]) == ("7", [1.0, 2.0], None)


def test_impressions_are_told_apart_by_request_and_item(landing: Landing, tables: Tables) -> None:
    row = {"request_time": NOON, "user_id": "u", "surface": "search", "stage": "clicked"}
    keys = [("r", "a"), ("r", "b"), ("r", "a"), ("s", "a")]
    landing.write(
        LandingTable.impressions, DAY, pl.DataFrame([{"request_id": r, "item_id": i, **row} for r, i in keys])
    )
    report = ingest(landing, tables, LandingTable.impressions, DAY, DataSettings())
    assert (report.rows_written, report.duplicates) == (3, 1)


def test_ids_that_only_look_like_text_formulas_are_kept_as_they_are(landing: Landing, tables: Tables) -> None:
    rows = [{"item_id": "=1+1", "title": "<script>alert(1)</script>"}]
    landing.write(ITEMS, DAY, pl.DataFrame(rows))
    ingest(landing, tables, ITEMS, DAY, DataSettings())
    assert tables.read("items", {"arrival_date": DAY})["title"].to_list() == ["<script>alert(1)</script>"]

"""Forgetting in files and tables: nothing of the user is left, and nothing of anybody else is lost."""

from __future__ import annotations

import fcntl
import gzip
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.warehouse.ingest.arrivals import (
    DAY,
    EVENTS,
    NOON,
    TOLERANT,
    arrive,
    as_csv,
    as_json_lines,
    event,
    write_text,
)
from warehouse.contracts import LandingTable
from warehouse.forget import add_tombstones, forget_in_landing, forget_in_tables, forgotten_users
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.ingest.read import text_in
from warehouse.landing import Landing
from warehouse.live_rows import LiveRows
from warehouse.tables import Tables

GONE = 'user, who "leaves"'
ROWS = [event("1", user_id="stays", search_string='größer, "quoted"\nnext line'), event("2", user_id=GONE), event("3")]


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.csv", as_csv), ("a.csv.gz", as_csv), ("a.jsonl", as_json_lines), ("a.ndjson.gz", as_json_lines)],
)
def test_text_loses_the_users_rows_and_is_otherwise_as_it_was(
    landing: Landing, tables: Tables, name: str, write: Callable[[list[dict[str, Any]]], str]
) -> None:
    path = write_text(landing, name, write(ROWS))
    os.utime(path, (1_000_000, 1_000_000))
    path.chmod(0o640)
    assert forget_in_landing(landing, [GONE]).removed == {path: 1}
    assert (path.stat().st_mtime, path.stat().st_mode & 0o777) == (1_000_000, 0o640)  # nothing takes it for an arrival
    assert content(path) == write([ROWS[0], ROWS[2]]).encode()
    assert forget_in_landing(landing, [GONE]).removed == {}
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    kept = tables.read("events", {"arrival_date": DAY}).sort("event_id")
    assert kept["search_string"][0] == ROWS[0]["search_string"]


@pytest.mark.parametrize(
    "place", ["events/date=2026-03-10/hour=00/a.csv", "events/a.csv", "event/date=2026-03-10/a.csv", "a.csv"]
)
def test_files_that_nothing_reads_lose_the_users_rows_too(landing: Landing, place: str) -> None:
    path = landing.root / place
    path.parent.mkdir(parents=True)
    path.write_text(as_csv(ROWS))
    assert forget_in_landing(landing, [GONE]).removed == {path: 1}
    assert path.read_text() == as_csv([ROWS[0], ROWS[2]])


def test_a_linked_folder_is_looked_into_and_a_folder_that_is_being_written_is_not(
    landing: Landing, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.csv").write_text(as_csv(ROWS))
    unfinished = write_text(landing, "a.csv", as_csv(ROWS))
    unfinished = unfinished.parent.rename(unfinished.parent.with_name("date=2026-03-11.tmp")) / "a.csv"
    landing.folder(EVENTS, DAY).symlink_to(elsewhere)
    found = forget_in_landing(landing, [GONE])
    assert found.removed == {landing.folder(EVENTS, DAY) / "a.csv": 1}
    assert found.not_looked_into == [unfinished]


ODD_CSV = [
    (b"user_id,x\r\nann,1\r\nbob,2\r\n", b"user_id,x\r\nbob,2\r\n"),
    (b"user_id,x\nann,1\n\nbob,2", b"user_id,x\n\nbob,2"),
    (b"\xef\xbb\xbfuser_id,x\nbob,1\nann,2\n", b"\xef\xbb\xbfuser_id,x\nbob,1\n"),
    (b'x,user_id\n"a\rb",bob\n"1\n2",ann\n', b'x,user_id\n"a\rb",bob\n'),
    (b'user_id,x\n"ann","1 ""2"" 3"\nbob,"4\n\n5"\n', b'user_id,x\nbob,"4\n\n5"\n'),
    (b'user_id,embedding\nann,1\nbob,"[' + b"0.1, " * 50_000 + b'0]"\n', None),
]


@pytest.mark.parametrize(("before", "after"), ODD_CSV)
def test_odd_csv_stays_odd(landing: Landing, before: bytes, after: bytes | None) -> None:
    path = write_text(landing, "a.csv", "")
    path.write_bytes(before)
    assert forget_in_landing(landing, ["ann"]).removed == {path: 1}
    assert path.read_bytes() == (after or before.replace(b"ann,1\n", b""))
    assert forget_in_landing(landing, ["ann", "cid"]).removed == {}


NUMBERS = [
    ("a.jsonl", b'{"user_id": 7, "event_id": "1"}\n\n{"user_id": 70, "event_id": "2"}\n'),
    ("a.jsonl", b'{"user_id": 7.0, "event_id": "1"}\n{"user_id": 70, "event_id": "2"}'),
    ("a.jsonl", b'{"user_id": "7", "event_id": "1", "x": 2}\n{"event_id": "2", "user_id": "70"}\n'),
    ("a.csv", b"event_id,user_id\n1,7\n2,70\n"),
    ("a.parquet", pl.Int64()),
    ("a.parquet", pl.Float64()),
    ("a.parquet", pl.Categorical()),
]


@pytest.mark.parametrize(("name", "written"), NUMBERS)
def test_an_id_is_read_as_ingestion_reads_it(
    landing: Landing, tables: Tables, name: str, written: bytes | pl.DataType
) -> None:
    path = write_text(landing, name, "")
    if isinstance(written, bytes):
        path.write_bytes(written)
    else:
        users = pl.Series("user_id", [7, 70]).cast(pl.String).cast(written)
        pl.DataFrame([users, pl.Series("event_id", ["1", "2"])]).write_parquet(path)
    as_ingested = text_in(path, "user_id")
    assert as_ingested is not None
    assert forget_in_landing(landing, list(as_ingested)[:1]).removed == {path: 1}
    left = text_in(path, "event_id")
    assert left is not None
    assert list(left) == ["2"]


def test_parquet_keeps_types_and_other_columns(landing: Landing) -> None:
    frame = pl.DataFrame(
        {"user_id": [7, 8, None], "item_id": ["a", "b", "c"], "nested": [[{"x": 1.5}], None, []]},
        schema_overrides={"user_id": pl.Int64},
    )
    path = landing.write(EVENTS, None, frame)
    assert forget_in_landing(landing, ["8"]).removed == {path: 1}
    assert_frame_equal(pl.read_parquet(path), frame[[0, 2]])


def test_what_names_no_user_is_left_alone(landing: Landing) -> None:
    write_text(landing, "_SUCCESS", "")
    notes = write_text(landing, "notes.txt", f"ask {GONE}")
    items = write_text(landing, "items.csv", f"item_id,title\n1,{GONE}\n", LandingTable.items)
    before = items.read_bytes()
    found = forget_in_landing(landing, [GONE])
    assert (found.removed, found.unreadable, found.not_looked_into) == ({}, {}, [notes])
    assert items.read_bytes() == before


@pytest.mark.parametrize("name", ["a.jsonl.tmp", ".a.jsonl.12.tmp", "a.csv.part"])
def test_a_file_that_is_being_written_is_left_to_its_writer(landing: Landing, name: str) -> None:
    """It would go on in what is no longer there, and others' rows would be lost."""
    path = write_text(landing, name, as_json_lines(ROWS))
    found = forget_in_landing(landing, [GONE])
    assert (found.removed, found.not_looked_into) == ({}, [path])
    assert path.read_text() == as_json_lines(ROWS)


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", b'{"user_id": "u"'), ("a.parquet", b"PAR1"), ("a.csv.gz", b"?")]
)
def test_a_file_that_cannot_be_read_is_named_and_keeps_nobody_else(landing: Landing, name: str, text: bytes) -> None:
    path = write_text(landing, "whole.jsonl", as_json_lines(ROWS))
    bad = path.with_name(name)
    bad.write_bytes(text)
    found = forget_in_landing(landing, [GONE])
    assert found.removed == {path: 1}
    assert list(found.unreadable) == [bad]
    assert str(bad) in found.unreadable[bad]


def test_tables_lose_the_rows_the_older_versions_and_take_none_back(landing: Landing, tables: Tables) -> None:
    keys = UserKeys.of(tables, landing)
    gone = pl.Series("user_id", [keys.key(GONE)])
    arrive(landing, [*ROWS, event("4", user_id=GONE, value=-1.0), event("5", user_id="stays", value=-1.0)])
    other = date(2026, 3, 11)
    arrive(landing, [event("6", user_id=GONE)], other)  # which becomes a day without events
    for day in (DAY, DAY, other):
        ingest(landing, tables, EVENTS, day=day, settings=TOLERANT)
    before = {name: tables.scan(name).collect() for name in tables.names()}
    (orphan,) = list(tables.path("identities").glob(f"source=events/arrival_date={other}/*.parquet"))
    orphan.with_name("part-of-a-writer-that-died.parquet").write_bytes(orphan.read_bytes())
    add_tombstones(tables, gone, DAY)
    removed = forget_in_tables(tables, gone)
    assert removed == {"events": 2, "identities": 2, "quarantine_events": 1}
    for name in removed:
        expected = before[name].filter(pl.col("user_id") != gone[0])
        assert_frame_equal(tables.scan(name).collect(), expected, check_row_order=False)
        on_disk = [str(path) for path in tables.path(name).rglob("*.parquet")]
        assert sorted(on_disk) == sorted(tables.files(name))
    # The file is ingested again, as an export that is sent twice.
    report = ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    assert (report.forgotten, report.rows_written, report.rows_quarantined) == (2, 2, 1)
    assert forget_in_tables(tables, gone) == {}


def test_what_a_forgotten_user_sends_again_is_counted_once(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1"), event("2", user_id="v")])
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    add_tombstones(tables, pl.Series([UserKeys.of(tables, landing).key("u")]), DAY)
    arrive(landing, [event("1"), event("bad", value=-1.0), event("2", user_id="v"), event("2", user_id="v")])
    report = ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    assert (report.rows_read, report.rows_written, report.forgotten, report.duplicates) == (4, 1, 2, 1)
    assert report.quarantined == {}
    assert tables.read("quarantine_events", {"arrival_date": DAY}).is_empty()


def test_a_row_beside_a_forgotten_users_row_of_the_same_key_stays(landing: Landing, tables: Tables) -> None:
    row = {"request_id": "r", "item_id": "i", "request_time": NOON, "surface": "search", "stage": "clicked"}
    rows = [{**row, "user_id": user} for user in ("gone", "bob", "bob")]
    landing.write(LandingTable.impressions, DAY, pl.DataFrame(rows))
    keys = UserKeys.of(tables, landing)
    add_tombstones(tables, pl.Series([keys.key("gone")]), DAY)
    report = ingest(landing, tables, LandingTable.impressions, day=DAY, settings=TOLERANT)
    assert (report.rows_read, report.rows_written, report.forgotten, report.duplicates) == (3, 1, 1, 1)
    assert tables.read("impressions", {"arrival_date": DAY})["user_id"].to_list() == [keys.key("bob")]


def test_tombstones_of_a_day_add_up(tables: Tables) -> None:
    assert forgotten_users(tables).to_list() == []
    add_tombstones(tables, pl.Series("user_id", ["a"]), DAY)
    add_tombstones(tables, pl.Series("user_id", ["b", "a"]), DAY)
    add_tombstones(tables, pl.Series("user_id", ["c"]), date(2026, 3, 11))
    assert sorted(forgotten_users(tables)) == ["a", "b", "c"]


def test_an_event_that_comes_in_meanwhile_is_not_lost(landing: Landing) -> None:
    """The service appends to a file that is being rewritten: it waits, and goes on in the file that took its place."""
    live, noon = LiveRows(landing), datetime(2026, 3, 10, 12, tzinfo=UTC)
    live.append(EVENTS, [{"event_id": "1", "user_id": GONE}, {"event_id": "2", "user_id": "stays"}], noon)
    (path,) = landing.files(EVENTS, DAY)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        appending = Thread(target=live.append, args=(EVENTS, [{"event_id": "3", "user_id": "stays"}], noon))
        appending.start()
        sleep(0.2)
        assert appending.is_alive()
        path.with_name("new").write_bytes(path.read_bytes())
        path.with_name("new").replace(path)
    appending.join()
    assert [line.split('"')[3] for line in path.read_text().splitlines()] == ["1", "2", "3"]
    assert forget_in_landing(landing, [GONE]).removed == {path: 1}
    live.append(EVENTS, [{"event_id": "4", "user_id": "stays"}], noon)
    assert [line.split('"')[3] for line in path.read_text().splitlines()] == ["2", "3", "4"]

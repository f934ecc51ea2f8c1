"""Rows that arrive one by one: whole lines in the folder of their table and day, each key once a process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from settings import DataSettings
from warehouse.contracts import LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.live_rows import LIVE_FILES, LiveRows
from warehouse.tables import Tables

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = date(2026, 3, 10)


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def label(item_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "surface": "search",
        "subject_item_id": None,
        "query": "red chair",
        "item_id": item_id,
        "rater_id": "ann",
        "label": 4,
        "template": "guidelines-1",
        "labelled_at": NOON.isoformat(),
        "stage": "ranked",
        "inclusion_probability": 0.25,
    } | changed


def report(feedback_id: str) -> dict[str, Any]:
    return {"feedback_id": feedback_id, "given_at": NOON.isoformat(), "surface": "home_feed", "item_id": "i1"}


def lines(landing: Landing, table: LandingTable) -> list[dict[str, Any]]:
    files = landing.folder(table, DAY).glob(LIVE_FILES)
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_each_table_has_its_own_folder_and_key(landing: Landing) -> None:
    live = LiveRows(landing)
    rows = [label("i1"), label("i1", label=1), label("i1", rater_id="bob"), label("i2", query="blue chair")]
    assert live.append(LandingTable.relevance_labels, rows, NOON).written == 3  # the second has the key of the first
    assert live.append(LandingTable.relevance_labels, rows, NOON).written == 0
    told = live.append(LandingTable.feedback, [report("f1"), report("f2"), report("f1")], NOON)
    assert (told.day, told.written) == (DAY, 2)
    assert [row["rater_id"] for row in lines(landing, LandingTable.relevance_labels)] == ["ann", "bob", "ann"]
    assert [row["feedback_id"] for row in lines(landing, LandingTable.feedback)] == ["f1", "f2"]


def test_the_day_is_that_of_the_log(landing: Landing) -> None:
    landing.write_manifest(Manifest(time_zone="Pacific/Kiritimati"))
    assert LiveRows(landing).append(LandingTable.feedback, [report("f1")], NOON).day == date(2026, 3, 11)


def test_the_day_takes_the_rows_in(landing: Landing, tmp_path: Path) -> None:
    """Of two processes, one of which got a report that the other had."""
    one, other = LiveRows(landing), LiveRows(landing)
    one.append(LandingTable.relevance_labels, [label("i1"), label("i2")], NOON)
    other.append(LandingTable.relevance_labels, [label("i1", rater_id="bob")], NOON)
    for live in (one, other):
        live.append(LandingTable.feedback, [report("f1")], NOON)
    tables = Tables(tmp_path / "tables")
    labels = ingest(landing, tables, LandingTable.relevance_labels, day=DAY, settings=DataSettings())
    assert (labels.rows_written, labels.rows_quarantined) == (3, 0)
    reports = ingest(landing, tables, LandingTable.feedback, day=DAY, settings=DataSettings())
    assert (reports.rows_written, reports.duplicates, reports.rows_quarantined) == (1, 1, 0)


def test_what_the_disk_refuses_is_not_remembered_as_taken(landing: Landing) -> None:
    live, folder = LiveRows(landing), landing.folder(LandingTable.feedback, DAY)
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with pytest.raises(OSError, match="exists"):
        live.append(LandingTable.feedback, [report("f1")], NOON)
    folder.unlink()
    assert live.append(LandingTable.feedback, [report("f1")], NOON).written == 1


def test_the_rows_of_one_table_push_no_other_table_out_of_the_memory(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.live_rows.REMEMBERED", 3)
    live = LiveRows(landing)
    live.append(LandingTable.feedback, [report("f1")], NOON)
    samples = [{"sample_id": "s1", "item_id": f"i{number}"} for number in range(10)]
    assert live.append(LandingTable.funnel_sample, samples, NOON).written == 10
    assert live.append(LandingTable.feedback, [report("f1")], NOON).written == 0
    live.append(LandingTable.feedback, [report(f"f{number}") for number in range(2, 5)], NOON)
    assert live.append(LandingTable.feedback, [report("f4")], NOON).written == 0
    assert live.append(LandingTable.feedback, [report("f1")], NOON).written == 1  # only the newest are remembered


def test_lines_of_threads_are_whole(landing: Landing) -> None:
    live = LiveRows(landing)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: live.append(LandingTable.feedback, [report(f"f{n % 100}")], NOON), range(200)))
    assert sorted(row["feedback_id"] for row in lines(landing, LandingTable.feedback)) == sorted(
        f"f{number}" for number in range(100)
    )

"""Tables whose files were damaged: what is said of them, and that the day's run makes its partition whole."""

from __future__ import annotations

import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.warehouse.ingest.arrivals import DAY, EVENTS, TOLERANT, arrive, event
from warehouse.day_records import record_completed, standings
from warehouse.delta_log import LOG, damaged_commits
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.open_home import open_for_writing
from warehouse.tables import TableDamaged, Tables

DAYS = [date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 3)]
ROWS = pl.DataFrame({"a": [1, 2, 3], "b": ["u", "v", "w"]})


def commits(tables: Tables, name: str = "x") -> list[Path]:
    return sorted((tables.path(name) / LOG).glob("*.json"))


def written(root: Path) -> Tables:
    """Three days, and the second of them again."""
    tables = Tables(root)
    for day in [*DAYS, DAYS[1]]:
        tables.write("x", ROWS, {"day": day})
    return tables


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_commit_cut_anywhere_is_named_and_the_day_s_run_heals_it(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    """Also one that lost its last lines only, or everything: delta-rs would read past both."""
    tables = written(tmp_path_factory.mktemp("cut"))
    newest = commits(tables)[-1]
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content.rstrip()))])
    for read in (tables.scan, tables.files, tables.partitions, tables.partition_columns):
        with pytest.raises(
            TableDamaged, match=rf"table 'x'.*{newest.name}.*day=2020-01-02.*adseq run --days 2020-01-02"
        ):
            read("x")
    with pytest.raises(TableDamaged):  # another day's rows would hide what is lost
        tables.write("x", ROWS, {"day": DAYS[2]})
    tables.write("x", ROWS.head(1), {"day": DAYS[1]})
    assert tables.scan("x").group_by("day").len().sort("day").collect()["len"].to_list() == [3, 1, 3]
    assert not damaged_commits(tables.path("x"))


def test_files_that_a_stage_left_before_do_not_hide_the_day_of_a_damaged_commit(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("x", ROWS, {"day": DAYS[0]})
    [file] = map(Path, tables.files("x"))
    shutil.copy2(file, file.with_name("part-00000-of-a-stage-that-died.parquet"))
    past = file.stat().st_mtime - 60
    os.utime(file.with_name("part-00000-of-a-stage-that-died.parquet"), (past, past))
    tables.write("x", ROWS, {"day": DAYS[1]})
    commits(tables)[-1].write_text("")
    [damaged] = damaged_commits(tables.path("x"))
    assert damaged.partition == {"day": DAYS[1].isoformat()}


def test_an_earlier_damaged_commit_needs_a_backup(tmp_path: Path) -> None:
    tables = written(tmp_path)
    early = commits(tables)[1]
    early.write_text(early.read_text()[:40])
    for attempt in (lambda: tables.scan("x"), lambda: tables.write("x", ROWS, {"day": DAYS[0]})):
        with pytest.raises(TableDamaged, match=rf"{early.name}.*restore it from a backup"):
            attempt()


def test_a_missing_commit_is_named(tmp_path: Path) -> None:
    tables = written(tmp_path)
    commits(tables)[1].unlink()
    with pytest.raises(TableDamaged, match=r"commits \[1\] are missing.*backup"):
        tables.scan("x")


def test_a_day_whose_data_file_is_gone_is_made_again_by_its_ingestion(landing: Landing, tables: Tables) -> None:
    later = DAY + timedelta(days=1)
    arrive(landing, [event("1"), event("2")])
    arrive(landing, [event("2"), event("3")], day=later)
    for day in (DAY, later):
        ingest(landing, tables, EVENTS, day=day, settings=TOLERANT)
    before = tables.read("events", {"arrival_date": later})
    for path in [path for path in tables.files("events") if str(later) in path]:
        Path(path).unlink()
    ingest(landing, tables, EVENTS, day=later, settings=TOLERANT)
    assert tables.read("events", {"arrival_date": later}).equals(before)
    assert before["event_id"].to_list() == ["3"]  # an event of an earlier day is still known


def cut_newest_commit(tables: Tables, name: str) -> None:
    newest = commits(tables, name)[-1]
    newest.write_bytes(newest.read_bytes()[:-30])


@pytest.mark.parametrize("day", [None, DAY], ids=["history", "day"])
def test_an_arrival_whose_newest_commit_is_cut_is_made_again_by_its_ingestion(
    landing: Landing, tables: Tables, day: date | None
) -> None:
    arrive(landing, [event("0")], day=None)
    arrive(landing, [event("0"), event("1")])
    for each in (None, DAY, day):
        ingest(landing, tables, EVENTS, day=each, settings=TOLERANT)
    before = tables.scan("events").sort("event_id").collect()
    cut_newest_commit(tables, "events")
    ingest(landing, tables, EVENTS, day=day, settings=TOLERANT)
    assert tables.scan("events").sort("event_id").collect().equals(before)
    assert before["event_id"].to_list() == ["0", "1"]


@pytest.mark.parametrize("name", ["landed_files", "completed_days"])
def test_a_day_whose_record_is_cut_runs_again(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    landing, tables = Landing(home.landing), Tables(home.tables)
    open_for_writing(home)
    arrive(landing, [event("0")], day=None)
    arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, day=None, settings=TOLERANT)
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    record_completed(tables, DAY)
    assert [each.up_to_date for each in standings(tables, landing)] == [True]
    arrive(landing, [event("2")], part="part-1")
    ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT)
    record_completed(tables, DAY)
    cut_newest_commit(tables, name)
    with pytest.raises(TableDamaged, match=f"table '{name}'.*any run sets the commit aside"):
        tables.scan(name)
    open_for_writing(home)
    assert [each.up_to_date for each in standings(tables, landing)] == [False]

"""``adseq run`` on a stand-in for the flow: what runs, in which order, and what a failure says."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from rich.console import Console

from pipelines import jobs
from pipelines.cli.errors import RunFailed, RunRefused
from pipelines.cli.run import Days, Local
from pipelines.instance import PROJECT
from tests.warehouse.ingest.arrivals import event
from warehouse.contracts import LandingTable
from warehouse.home import Home, HomeLocked
from warehouse.landing import Landing

pytestmark = pytest.mark.slow  # a second each: Dagster runs every job
ALL_DAYS = ["2014-07-20", "2014-07-21", "2014-07-23"]


@pytest.fixture
def local(flow: Any, home: Home) -> Iterator[Local]:
    console = Console(file=io.StringIO(), width=200)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Local(home, flow.definitions(), instance, console)


def shown(local: Local) -> str:
    assert isinstance(local.console.file, io.StringIO)
    return local.console.file.getvalue()


def test_the_history_and_the_training_come_first_then_the_days_in_order(local: Local, flow: Any) -> None:
    local.run()
    bootstrap = 1 + len(jobs.TRAINING)
    assert flow.names()[:bootstrap] == [jobs.HISTORY, *jobs.TRAINING]
    assert flow.days() == ALL_DAYS
    assert len(flow.done) == bootstrap + 3 * len(jobs.DAILY)


def test_a_second_run_does_nothing_and_says_so(local: Local, flow: Any) -> None:
    local.run()
    flow.done.clear()
    local.run()
    assert flow.done == []
    assert "already" in shown(local)


def test_days_selects_and_again_repeats(local: Local, flow: Any) -> None:
    local.run(Days(date(2014, 7, 21), date(2014, 7, 23)))
    assert flow.days() == ["2014-07-21", "2014-07-23"]
    local.run()
    assert flow.days() == ["2014-07-21", "2014-07-23", "2014-07-20"]
    local.run(Days.parse("2014-07-21"), again=True)
    assert flow.days()[3:] == ["2014-07-21"]


def test_a_day_whose_files_changed_runs_again_and_so_do_the_days_after_it(local: Local, flow: Any) -> None:
    home, landing = local.home, Landing(local.home.landing)
    happened = datetime(2014, 7, 1, tzinfo=UTC)
    shutil.rmtree(landing.folder(LandingTable.events, date(2014, 7, 23)))
    for day in (None, date(2014, 7, 20), date(2014, 7, 21)):
        landing.write(LandingTable.events, day, pl.DataFrame([event(str(day), event_time=happened)]))
    odd = landing.root / "events" / "date=2014-02-30"
    odd.mkdir()
    flow.ingesting = home
    local.run()
    assert f"Not read: {odd}: 2014-02-30 is not a day" in shown(local)
    late = landing.write(
        LandingTable.events, date(2014, 7, 20), pl.DataFrame([event("late", event_time=happened)]), "late"
    )
    flow.done.clear()
    local.run()
    assert flow.days() == ["2014-07-20", "2014-07-21"]
    assert f"{late} came" in shown(local)
    assert "Run again, because days before them run: 2014-07-21" in shown(local)

    old = landing.write(LandingTable.events, None, pl.DataFrame([event("older", event_time=happened)]), "older")
    flow.done.clear()
    local.run(Days.parse("2014-07-20"))
    assert flow.names()[0] == jobs.HISTORY
    assert sorted(flow.names()[1:]) == sorted(jobs.DAILY)
    assert f"{old} came" in shown(local)
    assert "Out of date, and not among the chosen days: 2014-07-21" in shown(local)
    flow.done.clear()
    local.run(Days.parse("2014-07-20"))
    assert flow.done == []
    assert "done already, but for what is named above" in shown(local)


def test_retrain_trains_again_without_the_history(local: Local, flow: Any) -> None:
    local.run()
    flow.done.clear()
    local.run(retrain=True)
    assert flow.names() == list(jobs.TRAINING)


def test_a_refused_model_is_named_with_the_gates_figures(local: Local) -> None:
    local.run()
    assert "not promoted" not in shown(local)
    decision: dict[str, str | bool] = {"candidate": "item-2", "promoted": False, "champion": "item-1"}
    figures = "item-2 does not pass: Recall@100 0.1000 against 0.2000 of item-1 [champion]."
    decided = dg.AssetMaterialization("champion", metadata={**decision, "reason": figures})
    local.instance.report_runless_asset_event(decided)
    local._tell_refusal()
    assert f"item-2 was not promoted. {figures} item-1 was champion before and still serves" in shown(local)


def test_a_failure_names_asset_day_error_and_the_next_run_goes_on_from_there(local: Local, flow: Any) -> None:
    flow.broken["item_features"] = ValueError("prices of 3 items are negative")
    with pytest.raises(RunFailed) as failure:
        local.run()
    message = str(failure.value)
    assert "item_features failed on 2014-07-20" in message
    assert "prices of 3 items are negative" in message
    traceback = Path(message.split("The whole traceback: ")[1].splitlines()[0])
    assert "in body" in traceback.read_text()
    assert flow.days() == []

    del flow.broken["item_features"]
    flow.done.clear()
    local.run()
    assert jobs.HISTORY not in flow.names()
    assert flow.days() == ALL_DAYS


def test_a_failed_training_is_taken_up_without_the_history(local: Local, flow: Any) -> None:
    flow.broken["item_model"] = RuntimeError("out of memory")
    with pytest.raises(RunFailed, match="item_model failed"):
        local.run()
    flow.broken.clear()
    flow.done.clear()
    local.run()
    assert flow.names()[: len(jobs.TRAINING)] == list(jobs.TRAINING)


def test_a_report_that_fails_stops_no_day_and_is_repeated_alone(local: Local, flow: Any) -> None:
    report = "recall_report"
    flow.broken[report] = ValueError("no list is 100 deep")
    with pytest.raises(RunFailed) as failure:
        local.run()
    assert f"{report}: ValueError: no list is 100 deep" in str(failure.value)
    assert "in body" in Path(str(failure.value).split("traceback: ")[1].split(")")[0]).read_text()
    assert flow.days() == ALL_DAYS
    behind = list(jobs.TRAINING[jobs.TRAINING.index(report) :])
    assert set(flow.names()) == {jobs.HISTORY, *jobs.TRAINING, *jobs.DAILY} - set(behind)

    flow.broken.clear()
    flow.done.clear()
    local.run()
    assert flow.names() == behind


def test_a_daily_report_that_fails_stops_no_day_and_is_repeated_alone(local: Local, flow: Any) -> None:
    flow.broken["daily_recall"] = ValueError("nobody converted")
    with pytest.raises(RunFailed) as failure:
        local.run()
    assert all(f"daily_recall on {day}: ValueError: nobody converted" in str(failure.value) for day in ALL_DAYS)
    assert flow.days() == ALL_DAYS
    flow.broken.clear()
    flow.done.clear()
    local.run()
    behind = jobs.DAILY[jobs.DAILY.index("daily_recall") :]  # here each report waits for the one before it
    assert flow.done == [(name, day) for day in ALL_DAYS for name in behind if name in jobs.REPORTS]


def test_an_asset_that_fails_beside_a_report_is_what_stops_the_run(local: Local, flow: Any) -> None:
    flow.broken |= {"daily_recall": ValueError("nobody converted"), "retention": ValueError("the disk is gone")}
    with pytest.raises(RunFailed, match=r"The asset retention failed on 2014-07-20(.|\n)*the disk is gone"):
        local.run()
    assert flow.days() == []


def test_the_message_is_the_assets_own_also_after_retries(flow: Any, home: Home) -> None:
    flow.broken["history"] = ValueError("the disk is full")
    console = Console(file=io.StringIO(), width=200)
    with dg.DagsterInstance.ephemeral() as instance:
        local = Local(home, flow.definitions(retries=True), instance, console)
        with pytest.raises(RunFailed, match="the disk is full"):
            local.run()
    assert "will be tried again: ValueError: the disk is full" in shown(local)


def test_progress_shows_seconds_and_numbers(local: Local) -> None:
    local.run()
    line = next(line for line in shown(local).splitlines() if " user_states " in line)
    assert "✓" in line
    assert " s  rows 12,345, share 0.25" in line
    assert "not a number" not in line


def test_the_runs_stay_in_the_homes_instance_for_the_ui(local: Local) -> None:
    with dg.DagsterInstance.local_temp(str(local.home.dagster)) as instance:
        Local(local.home, local.definitions, instance, local.console).run(Days.parse("2014-07-20"))
    with dg.DagsterInstance.local_temp(str(local.home.dagster)) as instance:
        runs = instance.get_runs()
    assert sorted(run.job_name for run in runs) == ["bootstrap", "daily"]
    assert all(run.status == dg.DagsterRunStatus.SUCCESS for run in runs)


def test_nothing_landed_is_refused_before_anything_runs(tmp_path: Path, local: Local, flow: Any) -> None:
    empty = Local(Home(tmp_path / "empty").create(), local.definitions, local.instance, local.console)
    with pytest.raises(RunRefused, match="Nothing has landed"):
        empty.run()
    assert flow.done == []


def test_days_that_have_not_landed_are_refused_with_what_there_is(local: Local) -> None:
    with pytest.raises(RunRefused, match="3 days from 2014-07-20 to 2014-07-23"):
        local.run(Days.parse("2014-08-01..2014-08-05"))


def test_one_writer_at_a_time(local: Local) -> None:
    with local.home.writing("somebody else"), pytest.raises(HomeLocked, match="somebody else"):
        local.run()


@pytest.mark.parametrize("text", ["yesterday", "2014-07-32", "2014-07-23..2014-07-20", ""])
def test_a_wrong_range_of_days_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(RunRefused, match="--days"):
        Days.parse(text)


def test_the_command_reads_no_partitions_before_the_home_is_chosen() -> None:
    """Importing ``assets.common.partitions`` reads the environment's home; ``adseq run`` sets another one later."""
    modules = "pipelines.cli.run, pipelines.cli.validate, pipelines.cli.forget"
    script = f"import sys, {modules}; print('assets.common.partitions' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

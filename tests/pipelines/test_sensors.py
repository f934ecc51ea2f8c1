"""The landing sensor requests what is complete, once, and says what it waits for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.common.partitions import daily_partitions
from pipelines import jobs, schedules, sensors
from settings import DataSettings
from tests.warehouse.ingest.arrivals import event
from warehouse.contracts import LandingTable
from warehouse.day_records import record_completed
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

LANDED = [date(2014, 7, 20), date(2014, 7, 21), date(2014, 7, 23)]
DAYS = daily_partitions(LANDED, "UTC", date(2026, 5, 20))


@pytest.fixture
def landing(home: Home, monkeypatch: pytest.MonkeyPatch) -> Landing:
    """The landing zone of the home that the sensor reads; all of it quiet for an hour."""
    monkeypatch.setenv("ADSEQ_HOME", str(home.root))
    monkeypatch.setattr(sensors, "days", DAYS)
    monkeypatch.setattr(DAYS, "_followed", None)
    landing = Landing(home.landing)
    for day in LANDED:
        age(landing.folder(LandingTable.events, day), 3600)
    return landing


def age(folder: Path, seconds: float) -> None:
    """Make a folder and its files look unchanged for ``seconds``."""
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def materialize(instance: dg.DagsterInstance, name: str, partition: str | None = None) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=name, partition=partition))


def evaluate(instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    answer = sensors.new_landing_dates(dg.build_sensor_context(instance=instance))
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return answer


def requested(result: dg.SensorResult | dg.SkipReason) -> list[str | None]:
    assert isinstance(result, dg.SensorResult), result
    assert all(request.run_key == request.partition_key for request in result.run_requests or [])
    return [request.partition_key for request in result.run_requests or []]


def test_without_a_champion_it_says_what_to_launch(landing: Landing) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = evaluate(instance)
    assert isinstance(result, dg.SkipReason)
    assert "bootstrap" in (result.skip_message or "")


def test_it_requests_each_landed_day_that_is_not_done_oldest_first(landing: Landing) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "champion")
        assert requested(evaluate(instance)) == ["2014-07-20", "2014-07-21", "2014-07-23"]
        materialize(instance, jobs.DAILY[-1], "2014-07-21")
        assert requested(evaluate(instance)) == ["2014-07-20", "2014-07-23"]
        for day in LANDED:
            materialize(instance, jobs.DAILY[-1], day.isoformat())
        assert isinstance(evaluate(instance), dg.SkipReason)


def test_a_day_that_landed_after_the_load_needs_no_reload(landing: Landing, flow: Any) -> None:
    day = date(2014, 9, 1)
    landing.write(LandingTable.events, day, pl.DataFrame({"event_id": ["a"]}))
    age(landing.folder(LandingTable.events, day), 3600)
    job = flow.definitions(days=DAYS).resolve_job_def("daily")
    with pytest.raises(dg.DagsterUnknownPartitionError):
        job.validate_partition_key("2014-09-01", None, None)
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "champion")
        assert "2014-09-01" in requested(evaluate(instance))
    job.validate_partition_key("2014-09-01", None, None)  # what the daemon's request is held against
    with pytest.raises(dg.DagsterUnknownPartitionError):
        job.validate_partition_key("2014-09-02", None, None)


def test_what_nothing_reads_is_in_the_sensors_words(landing: Landing) -> None:
    (landing.root / "events" / "date=2014-7-24").mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "champion")
        for day in LANDED:
            materialize(instance, jobs.DAILY[-1], day.isoformat())
        result = evaluate(instance)
    assert isinstance(result, dg.SkipReason)
    assert "rename it to date=2014-07-24" in (result.skip_message or "")


def test_a_day_whose_files_change_after_it_ran_is_requested_again_and_the_day_after_it_next(
    home: Home, landing: Landing
) -> None:
    shutil.rmtree(landing.root)
    for day in (None, *LANDED):
        landing.write(LandingTable.events, day, pl.DataFrame([event(str(day), event_time=datetime(2014, 7, 1))]))
    run_days(home, [None, *LANDED])
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "champion")
        for day in LANDED:
            materialize(instance, jobs.DAILY[-1], day.isoformat())
        assert isinstance(evaluate(instance), dg.SkipReason)
        late = landing.write(LandingTable.events, LANDED[1], pl.DataFrame([event("late")]), "late")
        assert "quiet" in str(evaluate(instance))
        age(late.parent, 3600)
        result = evaluate(instance)
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or []
        (observation,) = result.asset_events
        assert request.partition_key == LANDED[1].isoformat()
        assert request.run_key != request.partition_key
        assert f"{late} came" in str(observation.description)
        run_days(home, [LANDED[1]])
        (after,) = evaluate(instance).run_requests or []
        assert after.partition_key == LANDED[2].isoformat()
        run_days(home, [LANDED[2]])
        assert isinstance(evaluate(instance), dg.SkipReason)


def run_days(home: Home, days: Sequence[date | None]) -> None:
    """What the ingestion and the last asset of the days leave in the tables."""
    tables, landing = Tables(home.tables), Landing(home.landing)
    for day in days:
        ingest(landing, tables, LandingTable.events, day=day, settings=DataSettings(maximum_quarantine_share=1))
        if day is not None:
            record_completed(tables, day)


def test_the_schedule_fails_for_a_day_that_has_not_landed(landing: Landing) -> None:
    on_time = datetime(2014, 7, 24, 3, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=on_time) as context:
        request = schedules.daily_schedule(context)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2014-07-23"
    with (
        dg.build_schedule_context(scheduled_execution_time=on_time + timedelta(days=1)) as context,
        pytest.raises(schedules.NotLanded, match="no folder date=2014-07-24"),
    ):
        schedules.daily_schedule(context)


def test_a_day_that_is_still_being_written_waits_unless_it_says_success(landing: Landing) -> None:
    day = LANDED[0]
    landing.write(LandingTable.events, day, pl.DataFrame({"event_id": ["b"]}), part="part-1")
    assert "quiet" in (sensors.not_ready(landing, day, DAYS, time.time()) or "")
    assert sensors.not_ready(landing, day, DAYS, time.time() + sensors.QUIET_SECONDS + 1) is None
    (landing.folder(LandingTable.events, day) / "_SUCCESS").touch()
    assert sensors.not_ready(landing, day, DAYS, time.time()) is None


def test_a_link_to_nothing_holds_no_day_back(landing: Landing) -> None:
    (landing.folder(LandingTable.items, LANDED[0])).mkdir(parents=True)
    (landing.folder(LandingTable.items, LANDED[0]) / "gone.csv").symlink_to(landing.root / "nowhere")
    assert sensors.not_ready(landing, LANDED[0], DAYS, time.time() + sensors.QUIET_SECONDS + 1) is None


def test_another_table_that_is_still_being_written_holds_the_day_back(landing: Landing) -> None:
    landing.write(LandingTable.items, LANDED[0], pl.DataFrame({"item_id": ["a"]}))
    assert "quiet" in (sensors.not_ready(landing, LANDED[0], DAYS, time.time()) or "")


def test_a_day_without_events_waits_for_them(landing: Landing) -> None:
    day = date(2014, 7, 24)
    landing.write(LandingTable.items, day, pl.DataFrame({"item_id": ["a"]}))
    assert "no events yet" in (sensors.not_ready(landing, day, DAYS, time.time() + 3600) or "")


def test_a_day_before_the_loaded_ones_asks_for_a_reload(landing: Landing) -> None:
    day = date(2014, 7, 1)
    landing.write(LandingTable.events, day, pl.DataFrame({"event_id": ["a"]}))
    assert "reload" in (sensors.not_ready(landing, day, DAYS, time.time() + 3600) or "")


def test_today_waits_until_it_is_over(landing: Landing) -> None:
    today = date.today()
    live = daily_partitions([today - timedelta(days=1), today], "UTC", today)
    landing.write(LandingTable.events, today, pl.DataFrame({"event_id": ["a"]}))
    assert "not over yet" in (sensors.not_ready(landing, today, live, time.time() + 3600) or "")

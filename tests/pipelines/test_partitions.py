"""The daily partitions follow the landing zone, not the wall clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets import ingest
from assets.common.partitions import daily_partitions
from assets.common.workspace import Workspace
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

TODAY = date(2026, 5, 20)


@pytest.mark.parametrize("last", [date(2014, 7, 22), TODAY - timedelta(days=1)])
def test_partitions_end_with_the_newest_landed_day_of_a_past_log_and_of_a_live_one(last: date) -> None:
    partitions = daily_partitions([last - timedelta(days=2), last], "UTC", TODAY)
    days = [last - timedelta(days=back) for back in (2, 1, 0)]  # a day without a folder in between stays
    assert partitions.get_partition_keys() == [day.isoformat() for day in days]
    assert partitions.get_last_partition_key() == last.isoformat()
    assert not partitions.has_partition_key((last + timedelta(days=1)).isoformat())


def test_a_day_that_lands_after_the_load_becomes_a_partition_when_it_is_followed() -> None:
    partitions = daily_partitions([date(2014, 7, 20)], "America/New_York", TODAY)
    partitions.follow([date(2014, 7, 20), date(2014, 7, 22), date(2062, 7, 23)], TODAY)
    assert partitions.get_partition_keys() == ["2014-07-20", "2014-07-21", "2014-07-22"]
    assert partitions.has_partition_key("2014-07-22")
    assert not partitions.has_partition_key("2014-07-23")
    partitions.follow([], TODAY)
    assert partitions.has_partition_key("2014-07-22")


def test_a_folder_of_a_year_to_come_moves_no_end() -> None:
    partitions = daily_partitions([date(2014, 7, 20), date(2214, 7, 21)], "UTC", TODAY)
    assert partitions.get_partition_keys() == ["2014-07-20"]


def test_a_history_is_not_recorded_as_of_a_day_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    typed = Landing(home.landing).write(LandingTable.events, date(2126, 3, 10), pl.DataFrame({"event_id": ["a"]}))
    monkeypatch.setenv("ADSEQ_HOME", str(home.root))
    with pytest.raises(dg.Failure, match="dated after today") as failure:
        ingest.history(workspace=Workspace.from_environment())
    assert str(typed.parent) in str(failure.value)
    assert not Tables(home.tables).names()


def test_today_is_a_partition_once_it_is_over() -> None:
    today = datetime.now(UTC).date()
    partitions = daily_partitions([today - timedelta(days=1), today], "UTC", today)
    assert partitions.get_last_partition_key() == (today - timedelta(days=1)).isoformat()


def test_days_begin_at_midnight_of_the_manifests_zone() -> None:
    partitions = daily_partitions([date(2014, 7, 20)], "Asia/Tokyo", TODAY)
    window = partitions.time_window_for_partition_key("2014-07-20")
    assert window.start.utcoffset() == timedelta(hours=9)
    assert (window.start.hour, window.end - window.start) == (0, timedelta(days=1))


def test_an_empty_landing_zone_has_no_day_yet() -> None:
    assert daily_partitions([], "UTC", date.today() - timedelta(days=9)).get_partition_keys() == []


def test_a_launch_for_a_day_after_the_newest_landed_one_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSEQ_HOME", str(home.root))
    with (
        dg.build_asset_context(partition_key="2014-09-01") as context,
        pytest.raises(dg.Failure, match=r"2014-09-01 has not landed: the newest day .* is 2014-07-23"),
    ):
        ingest.events(context, workspace=Workspace.from_environment())
    assert not Tables(home.tables).names()

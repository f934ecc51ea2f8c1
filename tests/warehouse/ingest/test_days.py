"""What a day is, and what a day without files leaves."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from polars.testing import assert_frame_equal

from settings import DataSettings
from tests.warehouse.ingest.arrivals import (
    DAY,
    EVENTS,
    NOON,
    TOLERANT,
    arrive,
    event,
    ids,
)
from warehouse.contracts import LandingTable
from warehouse.days import day_end
from warehouse.ingest.arrival import ingest
from warehouse.ingest.read import LandingError
from warehouse.landing import Landing, Manifest
from warehouse.tables import Tables


def test_a_day_ingested_twice_has_equal_rows(landing: Landing, tables: Tables) -> None:
    arrive(
        landing,
        [event(str(number), user_id=str(number % 3)) for number in range(20)]
        + [event("3", user_id="0"), event("x", value=-1.0)],
    )
    reports, frames = [], []
    for _ in range(2):
        reports.append(ingest(landing, tables, EVENTS, day=DAY, settings=TOLERANT))
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
    assert ingest(landing, tables, EVENTS, day=None, settings=DataSettings()).late == 0
    assert ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings()).late == 1
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
    ingest(
        landing, tables, EVENTS, day=DAY, settings=DataSettings(future_tolerance_hours=1, maximum_quarantine_share=1)
    )
    assert ids(tables) == ["1"]


def test_a_day_without_a_folder_is_an_empty_partition_of_every_table(landing: Landing, tables: Tables) -> None:
    for table in LandingTable:
        report = ingest(landing, tables, table, day=DAY, settings=DataSettings())
        assert (report.rows_read, report.rows_written, report.files) == (0, 0, 0)
        assert tables.read(table.value, {"arrival_date": DAY}).is_empty()


def test_a_day_whose_files_went_away_becomes_empty(landing: Landing, tables: Tables) -> None:
    path = arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    path.unlink()
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    assert tables.scan("events").collect().is_empty()


def test_a_history_without_a_daily_folder_says_what_to_do(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("1")], None)
    with pytest.raises(LandingError, match="no folder named date=YYYY-MM-DD"):
        ingest(landing, tables, EVENTS, day=None, settings=DataSettings())

"""The daily partitions follow the landing zone, not the wall clock."""

from __future__ import annotations

from datetime import date, timedelta

from assets.partitions import MARGIN_DAYS, daily_partitions

TODAY = date(2026, 5, 20)


def test_a_past_log_ends_a_margin_after_its_last_landed_day() -> None:
    partitions = daily_partitions([date(2014, 7, 20), date(2014, 7, 22)], "UTC", TODAY)
    keys = partitions.get_partition_keys()
    assert keys[0] == "2014-07-20"
    assert keys[-1] == (date(2014, 7, 22) + timedelta(days=MARGIN_DAYS)).isoformat()
    assert len(keys) == 3 + MARGIN_DAYS


def test_a_live_log_has_no_end() -> None:
    live = daily_partitions([date(2026, 5, 1), TODAY - timedelta(days=3)], "UTC", TODAY)
    past = daily_partitions([date(2026, 5, 1), TODAY - timedelta(days=4)], "UTC", TODAY)
    assert live.end is None
    assert past.end is not None


def test_days_begin_at_midnight_of_the_manifests_zone() -> None:
    partitions = daily_partitions([date(2014, 7, 20)], "Asia/Tokyo", TODAY)
    window = partitions.time_window_for_partition_key("2014-07-20")
    assert window.start.utcoffset() == timedelta(hours=9)
    assert (window.start.hour, window.end - window.start) == (0, timedelta(days=1))


def test_an_empty_landing_zone_has_no_day_yet() -> None:
    assert daily_partitions([], "UTC", date.today() + timedelta(days=1)).get_partition_keys() == []

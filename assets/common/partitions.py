"""The days that the daily assets are partitioned by, read from the home's landing zone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from settings import Settings
from warehouse.day_records import landed_days
from warehouse.home import Home
from warehouse.landing import Landing


class LandedDays(dg.DailyPartitionsDefinition):
    """Daily partitions that end with the newest landed day, also when that landed after Dagster loaded them.

    Dagster asks the process that loaded the definitions whether a requested partition exists, and shows people the
    partitions that it read when it loaded them. So the sensor and the schedule, which run in that process, call
    ``follow`` and can launch a new day at once; the launch dialog offers the day after a reload of the code location.
    """

    _followed: float | None = None

    def follow(self, landed: Iterable[date], today: date) -> None:
        """Move the end to the newest of ``landed`` up to ``today``, if that day is newer than the present end."""
        ends = [_end(day, self.timezone).timestamp() for day in landed if day <= today]
        self._followed = max([*ends, self.end_timestamp or 0.0])

    @property
    def end_timestamp(self) -> float | None:
        """Return the end of the last partition, in seconds since 1970."""
        return self._followed if self._followed is not None else super().end_timestamp

    @property
    def end(self) -> datetime | None:
        """Return the end of the last partition."""
        seconds = self.end_timestamp
        return None if seconds is None else datetime.fromtimestamp(seconds, ZoneInfo(self.timezone))


def daily_partitions(landed: Sequence[date], time_zone: str, today: date) -> LandedDays:
    """Return daily partitions from the first landed day to the newest.

    Dagster offers a day once the day is over in ``time_zone``. A day between two landed days is a partition, too:
    nothing arrived on that day. A folder dated after today, such as one of a year typed wrong, does not move the end.
    With nothing landed there is no partition yet: Dagster still loads.

    Args:
        landed: arrival days, ascending.
        time_zone: the manifest's zone; days begin at its midnight.
        today: the current day in that zone.
    """
    # Dagster's end is the first day that is no longer a partition.
    past = [day for day in landed if day <= today]
    start, end = (past[0], past[-1] + timedelta(days=1)) if past else (today, today)
    return LandedDays(start_date=start.isoformat(), end_date=end.isoformat(), timezone=time_zone)


def _of_home(home: Home) -> LandedDays:
    landing = Landing(home.landing)
    return daily_partitions(landed_days(home), landing.manifest.time_zone, landing.today())


def _end(day: date, time_zone: str) -> datetime:
    return datetime.combine(day + timedelta(days=1), time.min, tzinfo=ZoneInfo(time_zone))


daily = _of_home(Home(Settings().home))
"""What every daily asset is partitioned by: read when Dagster loads the definitions, and followed by the sensor."""

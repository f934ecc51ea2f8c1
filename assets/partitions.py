"""The days that the daily assets are partitioned by, read from the home's landing zone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from settings import Settings
from warehouse.home import Home
from warehouse.landing import Landing

LIVE_WITHIN = timedelta(days=3)
"""A log whose last landed day is this near to today is live: its partitions have no end."""

MARGIN_DAYS = 7
"""Days after the last landed one that a past log's partitions hold, so that new arrivals need no reload."""


def daily_partitions(landed: Sequence[date], time_zone: str, today: date) -> dg.DailyPartitionsDefinition:
    """Daily partitions from the first landed day on.

    A past log ends ``MARGIN_DAYS`` after its last landed day, so that a log of 2014 shows no years of missing days;
    when more than that has landed, reload the code location. A live log has no end. Dagster offers a day once it is
    over in ``time_zone``. With nothing landed the days begin today, which makes none yet: Dagster still loads.

    Args:
        landed: arrival days, ascending (``Landing.dates()``).
        time_zone: the manifest's zone; days begin at its midnight.
        today: the current day in that zone.
    """
    if not landed:
        return dg.DailyPartitionsDefinition(start_date=today.isoformat(), timezone=time_zone)
    live = landed[-1] >= today - LIVE_WITHIN
    return dg.DailyPartitionsDefinition(
        start_date=landed[0].isoformat(),
        # Dagster's end is the first day that is no longer a partition.
        end_date=None if live else (landed[-1] + timedelta(days=MARGIN_DAYS + 1)).isoformat(),
        timezone=time_zone,
    )


def _of_home(home: Home) -> dg.DailyPartitionsDefinition:
    landing = Landing(home.landing)
    zone = landing.manifest.time_zone
    return daily_partitions(landing.dates(), zone, datetime.now(ZoneInfo(zone)).date())


daily = _of_home(Home(Settings().home))
"""What every daily asset is partitioned by. Read once, when Dagster loads the definitions."""

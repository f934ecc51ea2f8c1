"""Two schedules, both off until somebody turns them on in the UI.

The landing sensor (``pipelines.sensors``) is what runs by default: it launches each day once its files are there, for
a live log and for one of 2014 alike. Turn ``daily_schedule`` on *instead* of it where the export lands by a fixed hour
and a day without files should fail loudly rather than be waited for. ``weekly_retrain`` is off because a past log
gives the same model every week, and because a new champion, with its full inference, should have been asked for.
"""

from __future__ import annotations

import dagster as dg

from assets.partitions import daily as days
from pipelines import jobs

HOUR = 3

daily_schedule = dg.build_schedule_from_partitioned_job(
    jobs.daily,
    name="daily_schedule",
    hour_of_day=HOUR,
    description=f"Yesterday, at {HOUR}:00 of the manifest's time zone. An alternative to the sensor new_landing_dates.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    job=jobs.retrain,
    cron_schedule=f"0 {HOUR + 1} * * 1",
    execution_timezone=days.timezone,
    description="Every Monday, after the daily run: train, and promote if the gate lets the model pass.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

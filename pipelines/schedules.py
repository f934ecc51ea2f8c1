"""Two schedules, both off until somebody turns them on in the UI.

The landing sensor (``pipelines.sensors``) is what runs by default: it launches each day once its files are there, for
a live log and for one of 2014 alike. Turn ``daily_schedule`` on *instead* of it where the export lands by a fixed hour
and a day without files should fail loudly rather than be waited for. ``weekly_retrain`` is off because a past log
gives the same model every week, and because a new champion, with its full inference, should have been asked for.
"""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from assets.common.partitions import daily as days
from pipelines import jobs
from settings import Settings
from warehouse.day_records import landed_days
from warehouse.home import Home

HOUR = 3


class NotLanded(RuntimeError):
    """The schedule is due for a day that has no folder in the landing zone."""


@dg.schedule(
    job=jobs.daily,
    cron_schedule=f"0 {HOUR} * * *",
    execution_timezone=days.timezone,
    description=f"Yesterday, at {HOUR}:00 of the manifest's time zone. An alternative to the sensor new_landing_dates. "
    "Fails where yesterday has not landed.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Request a run for the day before the scheduled time.

    Raises:
        NotLanded: the day has no folder in the landing zone.
    """
    home = Home(Settings().home)
    today = context.scheduled_execution_time.astimezone(ZoneInfo(days.timezone)).date()
    yesterday = today - timedelta(days=1)
    landed = landed_days(home)
    if yesterday not in landed:
        raise NotLanded(
            f"{yesterday} has not landed: {home.landing} has no folder date={yesterday} in any table. See why the "
            "export is late; once the folder is there, launch the job `daily` for that day."
        )
    days.follow(landed, today)
    return dg.RunRequest(run_key=yesterday.isoformat(), partition_key=yesterday.isoformat())


weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    job=jobs.retrain,
    cron_schedule=f"0 {HOUR + 1} * * 1",
    execution_timezone=days.timezone,
    description="Every Monday, after the daily run: train, and promote if the gate lets the model pass.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

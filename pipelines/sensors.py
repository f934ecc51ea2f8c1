"""The sensor that launches ``daily`` for each landed day."""

from __future__ import annotations

import time
from datetime import date

import dagster as dg

from assets.partitions import daily as days
from pipelines import jobs
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing

QUIET_SECONDS = 60
"""A day without a ``_SUCCESS`` file counts as complete when nothing in it has changed for this long."""


@dg.sensor(
    job=jobs.daily,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="One run of `daily` for each landed day that has none yet, oldest first.",
)
def new_landing_dates(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One run request a landed day, with the day as run key.

    The sensor keeps no cursor. What is done is asked of Dagster (materialized partitions of the flow's last asset),
    and the run key makes the daemon launch each day once: a day that lands late, before days that are done, is found
    all the same, and a day that failed is not launched again and again (re-execute it from the UI once it is mended).
    """
    if context.instance.get_latest_materialization_event(dg.AssetKey("champion")) is None:
        return dg.SkipReason("There is no champion model yet: launch the job `bootstrap` (or `adseq run`) first.")
    landing = Landing(Home(Settings().home).landing)
    done = context.instance.get_materialized_partitions(dg.AssetKey(jobs.DAILY[-1]))
    waiting = [day for day in landing.dates() if day.isoformat() not in done]
    reasons = {day: reason for day in waiting if (reason := not_ready(landing, day, days, time.time()))}
    ready = [day for day in waiting if day not in reasons]
    if not ready:
        return dg.SkipReason(" ".join(reasons.values()) or f"Every landed day in {landing.root} is done.")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat()) for day in ready]
    )


def not_ready(landing: Landing, day: date, partitions: dg.DailyPartitionsDefinition, now: float) -> str | None:
    """Why a landed day cannot run yet, as a sentence; None when it can.

    Args:
        landing: the landing zone.
        day: an arrival day with a folder in some table.
        partitions: the daily partitions that Dagster has loaded.
        now: seconds since the epoch.
    """
    events = landing.folder(LandingTable.events, day)
    if not landing.files(LandingTable.events, day):
        return f"{day}: no events yet in {events}."
    if not partitions.has_partition_key(day.isoformat()):
        end = partitions.end
        if end is not None and day >= end.date():
            return f"{day} lies after the days that Dagster has loaded: reload the code location."
        return f"{day} is not over yet in {partitions.timezone}."
    if (events / "_SUCCESS").exists():
        return None
    age = now - _last_change(landing, day)
    return (
        f"{day}: files changed {age:.0f} s ago, waiting for {QUIET_SECONDS} s of quiet."
        if age < QUIET_SECONDS
        else None
    )


def _last_change(landing: Landing, day: date) -> float:
    """Seconds since the epoch of the newest change in the day's folders."""
    folders = [folder for table in LandingTable if (folder := landing.folder(table, day)).is_dir()]
    return max(path.stat().st_mtime for folder in folders for path in (folder, *folder.iterdir()))

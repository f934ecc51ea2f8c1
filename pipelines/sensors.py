"""The sensor that launches ``daily`` for each landed day, and again for a day whose files are others than it ran on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date

import dagster as dg

from assets.common.partitions import daily as days
from pipelines import jobs
from pipelines.due_days import OutOfDate, Standing, standing_of
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.day_records import landed_days
from warehouse.home import Home
from warehouse.landing import Landing

QUIET_SECONDS = 60
"""A day without a ``_SUCCESS`` file counts as complete when nothing in it has changed for this long."""


@dg.sensor(
    job=jobs.daily,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="One run of `daily` for each landed day that has none yet, oldest first; and one more for a day whose "
    "files came, changed or went after it ran, and for the days after it, one at a time.",
)
def new_landing_dates(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each landed day that has none, and for the first day that is out of date.

    Dagster says which days are done (materialized partitions of the flow's last asset). The run key makes the daemon
    launch each day once. A day that lands late, before days that are done, is found all the same. A day that failed is
    not launched again and again (re-execute the day from the UI once its cause is mended). The run key of a day that is
    out of date names the files that the day is going to be made of. The cursor holds the run keys of the last look:
    each is observed once.
    """
    if context.instance.get_latest_materialization_event(dg.AssetKey("champion")) is None:
        return dg.SkipReason("There is no champion model yet: launch the job `bootstrap` (or `adseq run`) first.")
    home = Home(Settings().home)
    landed = landed_days(home)
    days.follow(landed, Landing(home.landing).today())
    done = context.instance.get_materialized_partitions(dg.AssetKey(jobs.DAILY[-1]))
    standing = standing_of(home, {date.fromisoformat(key) for key in done})
    waiting = [day for day in landed if day.isoformat() not in done]
    again = list(standing.out_of_date[:1])  # the days after it run on what it leaves
    landing = Landing(home.landing)
    reasons = {day: reason for day in waiting if (reason := not_ready(landing, day, days, time.time()))}
    now = time.time()
    reasons |= {each.day: reason for each in again if each.changes and (reason := changing(landing, each.day, now))}
    requests = [dg.RunRequest(run_key=str(day), partition_key=str(day)) for day in waiting if day not in reasons]
    requests += [_again(each) for each in again if each.day not in reasons]
    said = [*reasons.values(), *_said(standing)]
    if not requests:
        return dg.SkipReason(" ".join(said) or f"Every landed day in {landing.root} is done.")
    for sentence in said:
        context.log.warning(sentence)
    requests.sort(key=lambda request: request.partition_key or "")
    return dg.SensorResult(
        run_requests=requests,
        cursor="\n".join(str(request.run_key) for request in requests),
        asset_events=[
            _observation(each)
            for each in again
            if each.day not in reasons and _run_key(each) not in (context.cursor or "").splitlines()
        ],
    )


def not_ready(landing: Landing, day: date, partitions: dg.DailyPartitionsDefinition, now: float) -> str | None:
    """Return the reason why a landed day cannot run yet, as a sentence; None for a day that can run.

    Args:
        landing: the landing zone.
        day: an arrival day with a folder in some table.
        partitions: the daily partitions that Dagster has loaded, which follow the landing zone.
        now: seconds since the epoch.
    """
    if not landing.files(LandingTable.events, day):
        return f"{day}: no events yet in {landing.folder(LandingTable.events, day)}."
    if not partitions.has_partition_key(day.isoformat()):
        if day < partitions.start.date():
            return f"{day} lies before the days that Dagster has loaded: reload the code location."
        return f"{day} is not over yet in {partitions.timezone}."
    return changing(landing, day, now)


def changing(landing: Landing, day: date, now: float) -> str | None:
    """Return a sentence if files of a day changed so lately that more files may come; None otherwise."""
    if (landing.folder(LandingTable.events, day) / "_SUCCESS").exists():
        return None
    age = now - _last_change(landing, day)
    if age >= QUIET_SECONDS:
        return None
    return f"{day}: files changed {age:.0f} s ago, waiting for {QUIET_SECONDS} s of quiet."


def _last_change(landing: Landing, day: date) -> float:
    """Return the time of the newest change in the day's folders, in seconds since the epoch; 0 without a folder."""
    folders = [folder for table in LandingTable if (folder := landing.folder(table, day)).is_dir()]
    paths = [path for folder in folders for path in (folder, *folder.iterdir())]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def _run_key(each: OutOfDate) -> str:
    return f"{each.day} {each.made_of}"


def _again(each: OutOfDate) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=_run_key(each), partition_key=each.day.isoformat(), tags={"adseq/out-of-date": str(each)[:255]}
    )


def _observation(each: OutOfDate) -> dg.AssetObservation:
    """Return an observation on the day's partition of ``events`` that says why the day runs again."""
    return dg.AssetObservation(
        asset_key="events", partition=each.day.isoformat(), metadata={"out_of_date": str(each)}, description=str(each)
    )


def _said(standing: Standing) -> Sequence[str]:
    """Return sentences on facts that nobody would see otherwise."""
    said = [str(each) for each in standing.out_of_date]
    if standing.history:
        changed = "; ".join(map(str, standing.history))
        said.append(f"The history changed after it was ingested ({changed}): `adseq run` ingests it again.")
    return [*said, *(f"Not read: {each}." for each in standing.unread)]

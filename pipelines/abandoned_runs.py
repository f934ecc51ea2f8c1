"""The sensor that closes runs of `adseq run` whose process is gone, so that Dagster's queue moves on by itself.

Dagster's own run monitoring watches the runs that Dagster launches; it knows no process of the others.
"""

from __future__ import annotations

import dagster as dg

from pipelines.instance import COMMAND_TAGS, close_abandoned_runs, unfinished_runs
from settings import Settings
from warehouse.home import Home, HomeLocked


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Marks runs of `adseq run` as failed once no process holds the home's lock any more.",
)
def abandoned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Close the unfinished runs of the command, if the home's write lock is free.

    The command makes its runs under the lock, so a free lock proves that the process is gone. The lock is held while
    the runs are closed: no new command can begin a run meanwhile.
    """
    if not unfinished_runs(context.instance, COMMAND_TAGS):
        return dg.SkipReason("No run of `adseq run` is unfinished.")
    try:
        with Home(Settings().home).writing("closing abandoned runs"):
            closed = close_abandoned_runs(context.instance, COMMAND_TAGS)
    except HomeLocked as busy:
        return dg.SkipReason(str(busy))
    return dg.SkipReason(f"{closed} run(s) of `adseq run` had no process any more and are marked as failed.")

"""The Dagster instance of a home: its ``dagster.yaml``, its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import dagster as dg

from warehouse.home import Home, write_atomically
from warehouse.move_home import follow_home
from warehouse.open_home import open_for_reading, open_for_writing

PROJECT = Path(__file__).resolve().parents[1]
NOT_COPIED = b"\n# Not copied: "
COMMAND_TAGS = {"adseq/command": "adseq run"}
"""Of the runs that the command executes in its own process, under the home's write lock from before to after."""

UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def use_home(home: Home) -> None:
    """Make this process and its children work on ``home``: directories, record, ``dagster.yaml``, environment.

    Call this function before ``pipelines.definitions`` is imported: that module reads the home's landing zone.

    Raises:
        OtherFormat, HomeRecordError, SecretMissing, SecretMismatch, ManifestError: see ``open_for_reading``.
    """
    open_for_writing(home)
    (home.root / "mlflow").mkdir(exist_ok=True)
    follow_home(home)
    wanted = files("pipelines").joinpath("dagster.yaml").read_bytes().partition(NOT_COPIED)[0]
    installed = home.dagster / "dagster.yaml"
    if not installed.is_file() or installed.read_bytes() != wanted:
        write_atomically(installed, wanted)
    _point_at(home)


def look_at_home(home: Home) -> None:
    """Make this process read ``home``. Writes nothing.

    Raises:
        OtherFormat, HomeRecordError, SecretMissing, SecretMismatch, ManifestError: see ``open_for_reading``.
    """
    open_for_reading(home)
    _point_at(home)


def _point_at(home: Home) -> None:
    os.environ["ADSEQ_HOME"] = str(home.root)
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    os.environ["MLFLOW_TRACKING_URI"] = home.tracking_uri
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def instance() -> dg.DagsterInstance:
    """Return the Dagster instance of the home that ``use_home`` chose."""
    return dg.DagsterInstance.get()


def close_abandoned_runs(opened: dg.DagsterInstance, tags: Mapping[str, str] | None = None) -> int:
    """Mark the runs without a live process as failed, and return the number of such runs.

    A killed ``adseq run`` cannot report its own end, and a run that seems to go on blocks the queue, which takes
    one run at a time. The caller must hold the home's write lock: every live run holds the lock, too.

    Args:
        tags: close only runs with these tags; by default every run.
    """
    runs = unfinished_runs(opened, tags)
    for run in runs:
        opened.report_run_failed(run, "Its process was killed before it could finish. Run it again.")
    return len(runs)


def unfinished_runs(opened: dg.DagsterInstance, tags: Mapping[str, str] | None = None) -> Sequence[dg.DagsterRun]:
    """Return the runs that have begun and have not ended: those with ``tags``, or all."""
    return opened.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags=tags))


def cancel_run(opened: dg.DagsterInstance, run_id: str) -> None:
    """Mark a run as canceled, unless the run has ended.

    Dagster retries a failed run and leaves a canceled run alone.
    """
    run = opened.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        opened.report_run_canceled(run, "Ctrl-C or SIGTERM ended `adseq run`. The same command continues.")

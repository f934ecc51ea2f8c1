"""Killed, fed with a broken file, or started twice: the same command again goes on, with the same rows in the end."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import torch

from ml.evaluation.model_names import TRAINED as MODELS
from ml.models.artifact import ModelArtifact
from ml.models.version_directories import DEPLOYED, evaluation_part
from ml.versions.work_directory import ENDED
from tests.assets.compare import assert_same_day
from tests.assets.world import DAYS, LATER, adseq, copy_of, start_adseq
from tests.flow import Ran
from tests.processes import Started
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
PATIENCE = 240.0  # seconds; for a busy machine


def kill_when(process: Started, condition: Callable[[], bool]) -> None:
    """kill -9 as soon as ``condition`` holds.

    Raises:
        AssertionError: the process ended before, or the condition never held.
    """
    try:
        wait_until(process, condition)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def wait_until(process: Started, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"it ended by itself: {process.stdout.read() if process.stdout else ''}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def statuses(home: Home) -> dict[str, list[str]]:
    """The statuses of all runs by job, oldest first."""
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        runs = list(reversed(instance.get_runs()))
    return {job: [run.status.value for run in runs if run.job_name == job] for job in {run.job_name for run in runs}}


def test_killed_in_training_the_same_command_completes_with_the_same_weights_and_rows(
    ran: Ran, landing: Landing, tmp_path: Path
) -> None:
    day, later = DAYS[0], [f"date={each}" for each in DAYS[1:]]
    landed = shutil.copytree(landing.root, tmp_path / "landing", ignore=shutil.ignore_patterns(*later))
    home = Home(tmp_path / "home")
    tables = Tables(home.tables)
    command = ("run", "--landing", str(landed))

    kill_when(start_adseq(home, *command), lambda: any(home.models.glob(".training-*/fit")))
    assert statuses(home) == {"bootstrap": ["STARTED"]}
    assert not tables.exists("model_versions")
    compared = f".training-item-*/fit/{evaluation_part(MODELS[0])}/{ENDED}"
    kill_when(start_adseq(home, *command), lambda: any(home.models.glob(compared)))
    assert not tables.exists("model_versions")

    done = adseq(home, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 earlier run(s) were killed" in done.stdout
    found = statuses(home)
    assert found["bootstrap"] + found.get("retrain", []) == ["FAILURE", "FAILURE", "SUCCESS"]
    assert found["daily"] == ["SUCCESS"]
    assert_same_day(ran.tables, tables, day, ["item-1"])
    for part in (DEPLOYED, *(evaluation_part(model) for model in MODELS)):
        before, after = (ModelArtifact.load(each.models / "item-1" / part).network for each in (ran.home, home))
        theirs = after.state_dict()
        assert all(torch.equal(theirs[name], value) for name, value in before.state_dict().items()), part
    assert "Every landed day is done already" in adseq(home, "run").stdout


def test_a_day_that_cannot_be_read_or_used_stops_and_the_next_command_after_mending_goes_on(
    ran: Ran, tmp_path: Path
) -> None:
    """A broken file; then a day that is valid row by row and useless as a whole; then a day to be warned of."""
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    tables, landing = Tables(home.tables), Landing(home.landing)
    broken = landing.folder(LandingTable.items, LATER) / "part-1.parquet"
    broken.write_bytes(b"PAR1 but nothing of the kind")

    stopped = adseq(home, "run")
    assert stopped.returncode == 1
    assert f"The asset items failed on {LATER}" in stopped.stderr
    assert str(broken) in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "will be tried again" not in stopped.stdout  # the answer would be the same
    assert LATER not in tables.days("items", "arrival_date")
    assert LATER not in tables.days("user_states", "day")

    broken.unlink()
    (landed,) = landing.files(LandingTable.events, LATER)
    events = pl.read_parquet(landed)
    landing.write(LandingTable.events, LATER, events.with_columns(item_id="of-another-shop-" + pl.col("item_id")))
    stopped = adseq(home, "run")
    assert stopped.returncode == 1
    assert "coverage: item_known 0, 1 before" in stopped.stdout
    assert "data_quality" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert LATER in tables.days("events", "arrival_date")
    assert LATER in tables.days("items", "arrival_date")
    for table in ("user_sequences", "item_features", "user_states", "item_embeddings"):
        assert LATER not in tables.days(table, "day"), table

    landing.write(LandingTable.events, LATER, events.gather_every(4))  # a quarter of a day: a warning
    printed = run_beside_another(home)
    assert "volume: events" in printed
    assert len(tables.read("user_states", {"model_version": "item-1", "day": LATER})) > 20
    assert statuses(home)["daily"][-3:] == ["FAILURE", "FAILURE", "SUCCESS"]
    items = pl.read_parquet(landing.files(LandingTable.items, LATER))["item_id"]
    assert set(tables.scan("items").filter(pl.col("arrival_date") == LATER).collect()["item_id"]) == set(items)


def run_beside_another(home: Home) -> str:
    """Start the command twice at once: the second is refused, the first completes. Returns what the first printed."""
    first = start_adseq(home, "run")
    try:
        wait_until(first, (home.root / "lock.holder.json").is_file)
        first.send_signal(signal.SIGSTOP)  # holds the home for as long as the second one needs
        second = adseq(home, "run")
        first.send_signal(signal.SIGCONT)
        printed, _ = first.communicate(timeout=PATIENCE)
    finally:
        first.kill()
    assert second.returncode == 2
    assert f"is being written by process {first.pid}" in second.stderr
    assert "adseq run" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0, printed
    return printed

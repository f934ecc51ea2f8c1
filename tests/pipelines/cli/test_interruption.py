"""Ctrl-C and SIGTERM: one sentence, the right exit code, within seconds, whatever the command is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import typer

from pipelines.cli import app as cli
from pipelines.cli import import_logs as cli_import
from pipelines.cli.interruption import GRACE_SECONDS, sentence, stoppable
from pipelines.instance import COMMAND_TAGS, cancel_run
from pipelines.jobs import RETRIES
from tests import processes
from tests.assets.world import DAYS, LATER, adseq, copy_of, environment, start_adseq
from tests.flow import Ran
from tests.processes import PROJECT, Started
from warehouse.home import Home
from warehouse.tables import Tables

UNFINISHED = dg.GraphDefinition(name="unfinished", node_defs=[]).to_job()
BOUND_SECONDS = 5.0
PATIENCE_SECONDS = 120.0

COMMAND = """
import sys, time
from pipelines.cli.interruption import before_ending, stoppable

def work(seconds):
    print("ready", flush=True)
    time.sleep(seconds)

@stoppable
def command(kind):
    if kind == "c code":
        import polars
        print("ready", flush=True)
        polars.select(polars.int_range(0, 10**12).sum()).item()
    if kind == "swallowed":
        while True:
            try:
                work(60)
            except BaseException:
                continue
    if kind == "late action":
        with before_ending(lambda: time.sleep(60)):
            work(60)
    with before_ending(lambda: print("told", flush=True)), before_ending(lambda: 1 / 0):
        work(60)

command(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("python", signal.SIGINT),
        ("c code", signal.SIGTERM),
        ("swallowed", signal.SIGINT),
        ("late action", signal.SIGTERM),
    ],
)
def test_a_signal_ends_any_work_with_one_sentence_and_the_code_of_the_signal(kind: str, number: signal.Signals) -> None:
    process = processes.start(COMMAND, kind, environment=os.environ)
    assert process.stdout is not None
    process.stdout.readline()
    sent = time.monotonic()
    process.send_signal(number)
    printed, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - sent < BOUND_SECONDS
    assert process.returncode == 128 + number
    assert said.strip() == sentence(number)
    if kind == "python":
        assert printed == "told\n"  # in spite of the action that failed


def test_every_command_but_the_services_ends_at_a_signal() -> None:
    """`serve` and `ui` end others first; they have handlers of their own. `proxy` becomes nginx."""
    groups = [cli.app, cli.exports, cli_import.app]
    callbacks = [command.callback for group in groups for command in group.registered_commands]
    unprotected = {callback.__name__ for callback in callbacks if callback and not hasattr(callback, "__wrapped__")}
    assert unprotected == {"serve", "ui", "proxy"}


def test_a_command_hands_on_its_error_and_its_exit() -> None:
    @stoppable
    def command(error: BaseException | None) -> str:
        if error is not None:
            raise error
        return "done"

    assert command(None) == "done"
    for error in (typer.Exit(3), ValueError("a fault")):
        with pytest.raises(type(error)) as raised:
            command(error)
        assert raised.value is error


@pytest.mark.slow
def test_a_run_that_is_ended_again_and_again_is_never_retried_and_completes(ran: Ran, tmp_path: Path) -> None:
    """While it imports, while it trains, and in a day; then the same command comes to its end."""
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    tables = Tables(home.tables)
    before = len(statuses(home))
    importing = subprocess.Popen(
        [sys.executable, "-u", "-m", "pipelines", "run"],
        cwd=PROJECT,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    maps = Path(f"/proc/{importing.pid}/maps")
    end_when(importing, signal.SIGTERM, lambda: "polars" in maps.read_text())
    retraining = start_adseq(home, "run", "--retrain")
    end_when(retraining, signal.SIGINT, lambda: any(home.models.glob(".training-*/fit")))
    in_a_day = start_adseq(home, "run")
    end_when(in_a_day, signal.SIGTERM, lambda: tables.days("events", "arrival_date")[-1] > DAYS[-1])
    done = adseq(home, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "were killed" not in done.stdout
    assert LATER in tables.days("user_states", "day")
    found = statuses(home)[before:]
    assert found[-1] == dg.DagsterRunStatus.SUCCESS
    assert dg.DagsterRunStatus.CANCELED in found
    assert set(found) <= {dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS}


def end_when(process: Started, number: signal.Signals, condition: Callable[[], bool]) -> None:
    """End `adseq run` as soon as ``condition`` holds, and check how it ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, process.stdout
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sent = time.monotonic()
    process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - sent < BOUND_SECONDS
    assert process.returncode == 128 + number, printed
    assert printed.endswith(f"{sentence(number)}\n")
    assert "Traceback" not in printed
    assert "tried again" not in printed


def statuses(home: Home) -> list[dg.DagsterRunStatus]:
    """The statuses of all runs, oldest first."""
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        return [run.status for run in reversed(instance.get_runs())]


def test_a_terminated_asset_is_not_retried_and_a_failed_one_is() -> None:
    """Dagster applies a retry policy also to an asset whose run was terminated."""
    tries: list[str] = []

    at_once = type(RETRIES)(max_retries=1)

    @dg.asset(retry_policy=at_once)
    def interrupted() -> None:
        tries.append("interrupted")
        raise KeyboardInterrupt

    @dg.asset(retry_policy=at_once)
    def failed() -> None:
        tries.append("failed")
        raise ValueError("busy")

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([failed], instance=instance, raise_on_error=False)
        dg.materialize([interrupted], instance=instance, raise_on_error=False)
    assert tries == ["failed"] * 2 + ["interrupted"]


def test_a_canceled_run_stays_what_it_is() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(UNFINISHED, tags=COMMAND_TAGS)
        cancel_run(instance, run.run_id)
        cancel_run(instance, "unknown")
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.CANCELED


def test_the_grace_leaves_room_within_the_bound() -> None:
    assert GRACE_SECONDS < BOUND_SECONDS - 1

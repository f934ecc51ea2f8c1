"""A day that is disturbed in every way that a machine knows ends with the rows of an undisturbed one."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from pipelines.cli.endings import FULL_DISK
from tests import processes
from tests.assets.compare import BY_ARRIVAL, BY_DAY, assert_same_day
from tests.assets.killing import KILLED
from tests.assets.test_faults import statuses
from tests.assets.test_publication import assert_store_is
from tests.assets.world import (
    ARRIVED,
    DAYS,
    INFERRED,
    LATER,
    adseq,
    copy_of,
    copy_of_stopped,
    days_of,
    environment,
    start_execution,
)
from tests.flow import Ran
from warehouse.home import Home
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
DISK, LEFT = 100, 2_000  # MiB; KiB that are free
FIRST, STEPS = 8, 17  # the first point of a kill, and the points between two kills
LOCKED_SECONDS = 7.0  # longer than SQLite waits of itself


def assert_as_undisturbed(undisturbed: Ran, home: Home) -> None:
    expected, actual = undisturbed.tables, Tables(home.tables)
    assert expected.names() == actual.names()
    assert_same_rows(expected, actual, expected.names())
    assert_store_is(home, "item-1", LATER)


def assert_same_rows(expected: Tables, actual: Tables, names: Sequence[str]) -> None:
    """The same rows of the day, and as many of all days in these tables."""
    assert_same_day(expected, actual, LATER, ["item-1"])
    for name in names:
        rows = [tables.scan(name).select(pl.len()).collect().item() for tables in (expected, actual)]
        assert rows[0] == rows[1], name


@dataclass(frozen=True)
class Stopped:
    """A home whose day was stopped by a full disk, on a larger disk now, and the command that was stopped."""

    home: Home
    command: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def stopped(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Stopped | None:
    """None where this process may mount no disk."""
    root = tmp_path_factory.mktemp("full")
    with small_disk(root) as disk:
        if disk is None:
            return None
        home = copy_of(ran.home, disk / "home", with_day=LATER)
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - LEFT * 1024))
        command = adseq(home, "run")
        return Stopped(copy_of_stopped(home, root / "home"), command)


@contextmanager
def small_disk(root: Path) -> Iterator[Path | None]:
    """A file system of its own, in memory; None without the right to mount one."""
    place = root / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # this process has read tables there


def test_a_day_on_a_full_disk_says_so(stopped: Stopped | None) -> None:
    """The next test shows that the day is whole when there is room."""
    if stopped is None:
        pytest.skip("a small disk needs the right to mount one")
    said = stopped.command.stderr
    assert stopped.command.returncode == 1, stopped.command.stdout
    # What SQLite and Dagster print of it comes first; the last word is for whoever has to do something.
    last = said.strip().splitlines()[-1]
    assert "give the same command again" in last, said
    assert last == FULL_DISK or "disk is full" in said or "No space left on device" in said


def test_a_day_killed_again_and_again_ends_with_the_rows_of_an_undisturbed_one(
    ran: Ran, day_later: Ran, stopped: Stopped | None, tmp_path: Path
) -> None:
    """``tests/assets/killing.py`` can kill it at every point there is; here at some.

    A full disk has stopped the day before.
    """
    killed = stopped.home if stopped else copy_of(ran.home, tmp_path / "killed", with_day=LATER)
    code = "from tests.assets.killing import main; main()"
    done = processes.run(code, LATER.isoformat(), str(STEPS), str(FIRST), environment=environment(killed))
    assert done.returncode == 0, done.stdout[-4000:]
    points = [line for line in done.stdout.splitlines() if line.startswith(KILLED)]
    assert len(points) >= 5
    assert done.stdout.count("1 earlier run(s) were killed; marked as failed") >= len(points) - 1  # the first had none
    *ended, last = statuses(killed)["daily"][len(DAYS) :]
    assert set(ended) == {"FAILURE"}
    # A kill after the day's last asset leaves nothing to do, and its run is the last.
    assert last == ("FAILURE" if "Every landed day is done already" in done.stdout else "SUCCESS")
    assert_as_undisturbed(day_later, killed)
    assert list(killed.root.glob("**/*.tmp*")) == []


def test_databases_that_are_locked_for_some_seconds_are_waited_for(ran: Ran, day_later: Ran, tmp_path: Path) -> None:
    """Those of Dagster and of MLflow, by the assets up to the states and by the one that MLflow hears of."""
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    databases = [home.root / "mlflow" / "mlflow.db", *home.dagster.rglob("*.db")]
    running = start_execution(home, days_of([LATER], (*ARRIVED, *INFERRED, "daily_recall")))
    try:
        while LATER not in Tables(home.tables).days("events", "arrival_date"):
            assert running.poll() is None
            time.sleep(0.05)
        with ExitStack() as locks:
            for database in databases:
                lock = locks.enter_context(closing(sqlite3.connect(database, timeout=60, isolation_level=None)))
                lock.execute("BEGIN EXCLUSIVE")
            time.sleep(LOCKED_SECONDS)
        printed, said = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == 0, printed + said
    assert_same_rows(day_later.tables, Tables(home.tables), (*BY_ARRIVAL, *BY_DAY))

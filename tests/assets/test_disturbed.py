"""A day that is disturbed in every way that a machine knows ends with the rows of an undisturbed one."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from pipelines.cli.endings import FULL_DISK
from tests import processes
from tests.assets.compare import assert_same_day
from tests.assets.killing import KILLED
from tests.assets.test_publication import assert_store_is
from tests.assets.world import LATER, adseq, copy_of, environment, start_adseq
from tests.flow import Ran
from warehouse.home import Home
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
DISK, LEFT = 100, (2_000,)  # MiB; KiB that are free, run after run
STEPS = 29  # points between two kills
LOCKED_SECONDS = 7.0  # longer than SQLite waits of itself


def assert_as_undisturbed(undisturbed: Ran, home: Home) -> None:
    expected, actual = undisturbed.tables, Tables(home.tables)
    assert_same_day(expected, actual, LATER, ["item-1"])
    assert expected.names() == actual.names()
    for name in expected.names():
        rows = [tables.scan(name).select(pl.len()).collect().item() for tables in (expected, actual)]
        assert rows[0] == rows[1], name
    assert_store_is(home, "item-1", LATER)


def test_a_day_killed_again_and_again_ends_with_the_rows_of_an_undisturbed_one(
    ran: Ran, day_later: Ran, tmp_path: Path
) -> None:
    """``tests/assets/killing.py`` can kill it at every point there is; here at some, from another one on each date."""
    killed = copy_of(ran.home, tmp_path / "killed", with_day=LATER)
    code = "from tests.assets.killing import main; main()"
    first = date.today().toordinal() % STEPS
    done = processes.run(code, LATER.isoformat(), str(STEPS), str(first), environment=environment(killed))
    assert done.returncode == 0, done.stdout[-4000:]
    points = [line for line in done.stdout.splitlines() if line.startswith(KILLED)]
    assert len(points) >= 3
    assert done.stdout.count("1 earlier run(s) were killed; marked as failed") >= len(points) - 1  # the first had none
    assert_as_undisturbed(day_later, killed)
    assert list(killed.root.glob("**/*.tmp*")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # this process has read tables there


def test_a_day_on_a_full_disk_says_so_and_is_whole_when_there_is_room(
    ran: Ran, day_later: Ran, small_disk: Path
) -> None:
    home = copy_of(ran.home, small_disk / "home", with_day=LATER)
    filler = small_disk / "filler"
    for left in LEFT:
        filler.unlink(missing_ok=True)
        filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - left * 1024))
        stopped = adseq(home, "run")
        assert stopped.returncode == 1, stopped.stdout
        # What SQLite and Dagster print of it comes first; the last word is for whoever has to do something.
        last = stopped.stderr.strip().splitlines()[-1]
        assert "give the same command again" in last, stopped.stderr
        assert last == FULL_DISK or "disk is full" in stopped.stderr or "No space left on device" in stopped.stderr
    filler.unlink()
    done = adseq(home, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_as_undisturbed(day_later, home)


def test_databases_that_are_locked_for_some_seconds_are_waited_for(ran: Ran, day_later: Ran, tmp_path: Path) -> None:
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    databases = [home.root / "mlflow" / "mlflow.db", *home.dagster.rglob("*.db")]
    running = start_adseq(home, "run")
    try:
        while LATER not in Tables(home.tables).days("events", "arrival_date"):
            assert running.poll() is None
            time.sleep(0.05)
        with ExitStack() as locks:
            for database in databases:
                lock = locks.enter_context(closing(sqlite3.connect(database, timeout=60, isolation_level=None)))
                lock.execute("BEGIN EXCLUSIVE")
            time.sleep(LOCKED_SECONDS)
        printed, _ = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == 0, printed
    assert_as_undisturbed(day_later, home)

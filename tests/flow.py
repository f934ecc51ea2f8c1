"""The whole flow on a tiny world, run once by the real command; tests of all folders read it or work on copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from tests.assets.world import DAYS, LATER, WORLD, adseq, copy_of
from warehouse.home import Home
from warehouse.identity import UserKeys, external_ids
from warehouse.landing import Landing
from warehouse.tables import Tables
from warehouse.world import write_world


@dataclass(frozen=True)
class Ran:
    """A home after ``adseq run``. Not to be written to."""

    home: Home
    printed: str

    @property
    def tables(self) -> Tables:
        return Tables(self.home.tables)

    @property
    def landing(self) -> Landing:
        return Landing(self.home.landing)

    def key(self, user_id: str) -> bytes:
        """A user's key in the online store."""
        return UserKeys.of(self.tables, self.landing).key(user_id).encode()

    def ids(self, keys: pl.Series) -> list[str]:
        """The ids of users, as the landing zone has them, in the order of their keys."""
        return list(external_ids(self.tables, keys))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory of all processes that share the tests."""
    return shared_directory(tmp_path_factory, worker_id)


def shared_directory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    own = tmp_path_factory.getbasetemp()
    root = own / "shared" if worker_id == "master" else own.parent / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def landing(shared: Path) -> Landing:
    """The tiny world with three daily days."""
    return write_landing(shared)


def write_landing(shared: Path) -> Landing:
    landing, written = Landing(shared / "landing"), shared / "landing.written"
    with FileLock(shared / "landing.lock"):
        if not written.exists():
            write_world(landing, WORLD, len(DAYS))
            written.touch()
    return landing


@pytest.fixture(scope="session")
def ran(shared: Path) -> Ran:
    """The history, a champion and three days; run by whichever process needs it first."""
    return run_flow(shared)


def run_flow(shared: Path) -> Ran:
    home, printed = Home(shared / "flow"), shared / "flow.printed"
    with FileLock(shared / "flow.lock"):
        if not printed.exists():
            done = adseq(home, "run", "--landing", str(write_landing(shared).root))
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
            printed.write_text(done.stdout)
    return Ran(home, printed.read_text())


@pytest.fixture(scope="session")
def day_later(ran: Ran, shared: Path) -> Ran:
    """A copy of the flow after one more day, which nothing disturbed."""
    root, printed = shared / "day-later", shared / "day-later.printed"
    with FileLock(shared / "day-later.lock"):
        if not printed.exists():
            done = adseq(copy_of(ran.home, root, with_day=LATER), "run")
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
            printed.write_text(done.stdout)
    return Ran(Home(root), printed.read_text())

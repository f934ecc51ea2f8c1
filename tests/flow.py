"""The whole flow on a tiny world, run once by the real command; tests of all folders read it or work on copies."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pytest

from tests.assets.world import DAYS, WORLD, adseq
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
def landing(tmp_path_factory: pytest.TempPathFactory) -> Landing:
    """The tiny world with three daily days."""
    landing = Landing(tmp_path_factory.mktemp("landing"))
    write_world(landing, WORLD, len(DAYS))
    return landing


@pytest.fixture(scope="session")
def ran(landing: Landing, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The history, a champion and three days."""
    home = Home(tmp_path_factory.mktemp("flow"))
    done = adseq(home, "run", "--landing", str(landing.root))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return Ran(home, done.stdout)

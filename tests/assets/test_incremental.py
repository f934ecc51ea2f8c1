"""Incremental equals full, and any day can be re-run, in any order, also when nothing of it is left."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from assets.deployment import versions
from tests.assets.compare import BY_DAY, TOLERANCE, assert_same_day, largest_difference_to_full
from tests.assets.world import DAYS, TRAINED, copy_of, days_of, execute
from tests.flow import Ran
from warehouse.states import snapshot
from warehouse.tables import Tables, vectors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rerun(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A copy whose days were forgotten, but for what was ingested, and run again: the last first, one of them twice."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("rerun") / "home")
    tables = Tables(home.tables)
    for name in BY_DAY:
        DeltaTable(str(tables.path(name))).delete(f"day >= '{DAYS[0]}'")
        assert not [day for day in tables.days(name, "day") if day >= DAYS[0]]
    execute(home, days_of([DAYS[2], DAYS[0], DAYS[1], DAYS[0]]))
    return tables


@pytest.mark.parametrize("day", DAYS)
def test_a_day_run_again_out_of_order_has_the_same_rows(ran: Ran, rerun: Tables, day: date) -> None:
    assert_same_day(ran.tables, rerun, day, ["item-1"])


def test_the_snapshot_equals_re_encoding_every_user_as_of_their_last_active_day(ran: Ran) -> None:
    (version,) = versions(ran.tables, ran.home)
    difference, stored = largest_difference_to_full(ran.tables, ran.landing, version, DAYS[-1])
    assert difference <= TOLERANCE
    assert stored["day"].equals(stored["expected_day"], check_names=False)
    by_day = dict(stored.group_by("day").len().rows())
    assert set(by_day) == {TRAINED, *DAYS}
    assert min(by_day.values()) > 20


def test_states_differ_between_days_so_that_equal_means_something(ran: Ran) -> None:
    before, after = (snapshot(ran.tables, "item-1", day) for day in (TRAINED, DAYS[-1]))
    moved = after.filter(pl.col("day") == DAYS[-1]).join(before, on="user_id", suffix="_before")
    distance = np.abs(vectors(moved["state"]) - vectors(moved["state_before"])).max(axis=1)
    assert np.median(distance) > 100 * TOLERANCE


def test_a_day_holds_the_users_who_were_active_on_it_and_no_other(ran: Ran) -> None:
    landed = ran.tables.scan("events").collect()
    for day in DAYS:
        active = set(landed.filter(pl.col("arrival_date") == day)["user_id"])
        inferred = ran.tables.read("user_states", {"model_version": "item-1", "day": day})["user_id"]
        assert set(inferred) == active
        assert len(inferred) == len(active)
        assert len(active) < 0.7 * landed["user_id"].n_unique()


def test_sequences_are_cut_at_the_set_length(ran: Ran) -> None:
    lengths = ran.tables.scan("user_sequences").select(pl.col("event_time").list.len()).collect()["event_time"]
    assert lengths.max() == 30
    assert (lengths < 30).any()


def test_copies_of_a_home_are_independent(ran: Ran, tmp_path: Path) -> None:
    """The tests that write rely on it: nothing in the copy's tracking database points back."""
    copy = copy_of(ran.home, tmp_path / "home")
    assert str(ran.home.root).encode() not in (copy.root / "mlflow" / "mlflow.db").read_bytes()

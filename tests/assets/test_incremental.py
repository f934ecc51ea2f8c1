"""Incremental equals full, and any day can be re-run, in any order, also when nothing of it is left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from assets.steps.versions import item_versions
from pipelines.cli.check import parts_of
from tests.assets.compare import BY_DAY, TOLERANCE, arrived_events, assert_same_day, largest_difference_to_full
from tests.assets.world import ARRIVED, DAYS, INFERRED, TRAINED, copy_of, days_of, execute
from tests.flow import Ran
from tests.processes import PROJECT
from warehouse.delta_log import LOG
from warehouse.home import Home
from warehouse.states import snapshot
from warehouse.tables import Tables, vectors

pytestmark = pytest.mark.slow

ALONE = """
import importlib.util, json, pathlib, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path[:] = [path for path in sys.path if not path.startswith("__editable__") and path != sys.argv[2]]
assert importlib.util.find_spec("ml") is None and importlib.util.find_spec("settings") is None
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
events = pandas.DataFrame(
    {"user_id": ["u1", "u1", "u2"], "item_id": ["a", "b", "a"], "advertiser_id": ["x", "y", "x"],
     "event_name": ["checkout"] * 3, "event_time": [1.7e9, 1.7e9 + 60, 1.7e9]}
)
said = []
for address in ("models:/adseq_item_model@champion", "models:/adseq_advertiser_model@champion"):
    model = mlflow.pyfunc.load_model(address)
    needed = pathlib.Path(mlflow.pyfunc.get_model_dependencies(address)).read_text().split()
    said.append((model.predict(events)["user_id"].to_list(), needed))
import ml
assert "code" in pathlib.Path(ml.__file__).parts, ml.__file__
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def rerun(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A copy whose days were forgotten, but for what was ingested, and run again: the last first, one of them twice.

    The settings ask for shorter sequences now. The copy is moved before, and of the last day a data file is gone and a
    commit cut: running the day heals both.
    """
    copy = copy_of(ran.home, tmp_path_factory.mktemp("rerun") / "copied")
    home = Home(copy.root.rename(copy.root.with_name("moved")))
    tables = Tables(home.tables)
    next(Path(path) for path in tables.files("events") if str(DAYS[2]) in path).unlink()
    commit = max((tables.path("items") / LOG).glob("*.json"))
    commit.write_bytes(commit.read_bytes()[:300])
    for name in BY_DAY:
        DeltaTable(str(tables.path(name))).delete(f"day >= '{DAYS[0]}'")
        assert not [day for day in tables.days(name, "day") if day >= DAYS[0]]
    shorter = {"sequences": {"length": 7, "lookback_days": 20}}  # for the next training: the champion has its own
    computed = (*INFERRED, "daily_recall")
    steps = [*days_of([DAYS[2], DAYS[0]], (*ARRIVED, *computed)), *days_of([DAYS[1], DAYS[0]], computed)]
    execute(home, [replace(step, settings=shorter) for step in [*steps, *days_of([DAYS[0]], ["retention"])]])
    return tables


@pytest.mark.parametrize("day", DAYS)
def test_a_day_run_again_out_of_order_has_the_same_rows(ran: Ran, rerun: Tables, day: date) -> None:
    assert_same_day(ran.tables, rerun, day, ["item-1"])


def test_the_snapshot_equals_re_encoding_every_user_as_of_their_last_active_day(ran: Ran) -> None:
    (version,) = item_versions(ran.tables, ran.home).all()
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
    landed = arrived_events(ran.tables, ran.landing)
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


def test_a_home_that_was_moved_is_whole_and_writes_nowhere_else(ran: Ran, rerun: Tables) -> None:
    home = Home(rerun.root.parent)
    assert [part for part in parts_of(home, True) if part.faults] == []
    assert [path.name for path in home.root.parent.iterdir()] == ["moved"]
    database = (home.root / "mlflow" / "mlflow.db").read_bytes()
    for elsewhere in (ran.home.root, home.root.with_name("copied")):
        assert f"file://{elsewhere}/".encode() not in database
    with duckdb.connect(str(home.views), read_only=True) as views:
        assert views.sql("SELECT count(*) FROM events").fetchall()[0][0] == rerun.scan("events").collect().height


def test_the_champion_of_a_moved_home_loads_where_adseq_is_not_installed(ran: Ran, rerun: Tables) -> None:
    """By its own code, and not by that of somebody else's package of the name."""
    home = Home(rerun.root.parent)
    command = [sys.executable, "-I", "-c", ALONE, home.tracking_uri, str(PROJECT)]
    done = subprocess.run(command, cwd=home.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for embeddings, requirements in json.loads(done.stdout):
        assert embeddings == ["u1", "u2"]
        assert not [each for each in requirements if "==" not in each or "adseq" in each or "+" in each]
        assert {"torch", "polars", "pydantic-settings"} <= {each.partition("==")[0] for each in requirements}

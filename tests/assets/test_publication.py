"""The online store holds what the tables hold, of the version that serves, whatever days are run again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.publish import publish_day
from assets.steps.versions import serving, serving_advertisers
from settings import Settings
from tests.assets.world import DAYS, LATER, PUBLISHED, copy_of, days_of, execute
from tests.flow import Ran
from warehouse.days import day_end
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.online import LmdbStore, StateRecord
from warehouse.online.publication import SEQUENCES, USERS, Publication, served
from warehouse.online.records import json_in, json_value, stamp_in, stamp_of
from warehouse.states import candidates_snapshot, snapshot
from warehouse.tables import Tables

pytestmark = pytest.mark.slow


def assert_store_is(home: Home, version: str, day: date) -> Publication:
    """Everything served is the snapshot of ``version`` as of ``day``."""
    tables, store = Tables(home.tables), LmdbStore(home.online)
    now = served(store)
    assert now is not None
    assert (now.model_version, now.day) == (version, day)
    states = snapshot(tables, version, day)
    assert store.count(now.states) == len(states)
    time_zone = Landing(home.landing).manifest.time_zone
    for row in states.rows(named=True):
        value = store.get(now.states, row["user_id"].encode())
        assert value is not None, row["user_id"]
        record = StateRecord.from_bytes(value)
        assert (record.day, record.events) == (row["day"], row["events"])
        assert record.last_event_time == row["last_event_time"]
        assert record.stamp == stamp_of(day_end(row["day"], time_zone))
        np.testing.assert_array_equal(record.state, np.array(row["state"], np.float32))
    assert now.advertiser_version is not None
    assert now.advertisers is not None
    lists = candidates_snapshot(tables, now.advertiser_version, day)
    assert store.count(now.advertisers) == len(lists)
    for row in lists.rows(named=True):
        value = store.get(now.advertisers, row["user_id"].encode())
        assert value is not None
        assert json_in(value)["advertiser_ids"] == row["advertiser_ids"]
    for path in (now.model, now.index, now.catalogue):
        assert (home.root / path).exists()
    assert len(pl.read_parquet(home.root / now.catalogue)) > 0
    store.close()
    return now


def test_after_some_days_the_store_is_the_snapshot(ran: Ran) -> None:
    now = assert_store_is(ran.home, "item-1", DAYS[-1])
    version = serving_advertisers(ran.tables, ran.home, DAYS[-1])
    assert version is not None
    assert now.advertiser_version == version.name


def test_the_store_knows_sequences_and_demographics(ran: Ran) -> None:
    store = LmdbStore(ran.home.online)
    newest = ran.tables.read("user_sequences", {"day": DAYS[-1]})
    for row in newest.rows(named=True):
        value = store.get(SEQUENCES, row["user_id"].encode())
        assert value is not None
        told = json_in(value)
        assert told["item_id"] == row["item_id"]
        assert told["event_time"] == [stamp_of(time) for time in row["event_time"]]
    people = ran.tables.scan("users").sort("arrival_date").collect().unique("user_id", keep="last")
    assert store.count(USERS) == len(people)
    someone = people.drop_nulls("age").row(0, named=True)
    value = store.get(USERS, someone["user_id"].encode())
    assert value is not None
    assert json_in(value) == {name: someone[name] for name in ("age", "gender", "country")}
    store.close()


def test_the_store_holds_no_user_id(ran: Ran) -> None:
    ids = ran.ids(ran.tables.scan("users").select("user_id").collect()["user_id"].unique())
    content = b"".join(file.read_bytes() for file in ran.home.online.rglob("*") if file.is_file())
    assert not [user_id for user_id in ids if user_id.encode() in content]


@pytest.fixture(scope="module")
def again(day_later: Ran, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Earlier days run again out of order after the newest one."""
    home = copy_of(day_later.home, tmp_path_factory.mktemp("online") / "home")
    execute(home, days_of([DAYS[2], DAYS[0]], (*PUBLISHED, "advertiser_candidates")))
    return home


def test_days_run_again_leave_the_store_at_the_newest(again: Home) -> None:
    assert_store_is(again, "item-1", LATER)


def test_a_publication_that_died_is_made_good(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Half of the states are missing and the pointer is of the day before: what a killed publisher leaves."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("died") / "home")
    store = LmdbStore(home.online)
    now = served(store)
    assert now is not None
    before = Publication(**{**vars(now), "day": DAYS[1]})
    active = ran.tables.read("user_sequences", {"day": DAYS[2]})["user_id"].to_list()
    store.remove(now.states, [key.encode() for key in active[::2]])
    store.switch(before.to_bytes())
    store.close()
    execute(home, days_of([DAYS[2]], ["online_states"]))
    assert_store_is(home, "item-1", DAYS[2])


@pytest.fixture
def workspace(ran: Ran, tmp_path: Path) -> Workspace:
    """A copy of the home, published as of its newest day."""
    return Workspace(Settings(home=copy_of(ran.home, tmp_path / "home").root))


def publish(workspace: Workspace) -> Publication:
    version = serving(workspace.tables, workspace.home, DAYS[-1], "item-1")
    return publish_day(workspace, version, DAYS[-1], version.name).publication


def quiet_user(workspace: Workspace) -> bytes:
    """Somebody who has a sequence, and was not active on the newest day."""
    active = workspace.tables.read("user_sequences", {"day": DAYS[-1]})["user_id"]
    everybody = snapshot(workspace.tables, "item-1", DAYS[-1])["user_id"]
    return str(everybody.filter(~everybody.is_in(active.implode()))[0]).encode()


@pytest.mark.parametrize("written_as", [None, "7-20"])
def test_sequences_of_another_shape_or_half_rewritten_are_written_anew(
    workspace: Workspace, written_as: str | None
) -> None:
    store, key = LmdbStore(workspace.home.online), quiet_user(workspace)
    now = served(store)
    assert now is not None
    assert now.sequence_shape == "30-1825"
    whole = store.get(SEQUENCES, key)
    assert whole is not None
    content = json_in(whole)
    assert len(content["event_id"]) > 1
    cut = json_value(stamp_in(whole), {name: values[-1:] for name, values in content.items()})
    store.put(SEQUENCES, [(key, cut)])
    publish(workspace)
    assert store.get(SEQUENCES, key) == cut  # the shape fits: only active users cost anything
    store.switch(replace(now, sequence_shape=written_as).to_bytes())
    assert publish(workspace).sequence_shape == "30-1825"
    assert store.get(SEQUENCES, key) == whole
    store.close()


def test_a_publisher_that_dies_among_sequences_of_another_shape_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(workspace.home.online)
    now = served(store)
    assert now is not None
    store.switch(replace(now, sequence_shape="7-20").to_bytes())
    monkeypatch.setattr("assets.steps.publish.all_sequences", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(workspace)
    left = served(store)
    assert left is not None
    assert (left.model_version, left.sequence_shape) == ("item-1", None)
    store.close()


def test_a_day_whose_sequences_were_not_stored_is_published(workspace: Workspace) -> None:
    """Its quality check may have stopped the day after its events had been ingested."""
    expected = workspace.tables.read("user_sequences", {"day": DAYS[-1]})
    workspace.tables.remove("user_sequences", {"day": DAYS[-1]})
    store = LmdbStore(workspace.home.online)
    keys = [key.encode() for key in expected["user_id"]]
    store.remove(SEQUENCES, keys)
    publish(workspace)
    assert [len(json_in(store.get(SEQUENCES, key) or b"")["event_id"]) for key in keys] == [
        len(row) for row in expected["event_id"]
    ]
    store.close()

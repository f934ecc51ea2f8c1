"""Everybody's candidates in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from settings import Settings
from tests.assets.world import DAYS, adseq
from tests.flow import Ran
from warehouse.home import Home
from warehouse.states import candidates_snapshot, snapshot

pytestmark = pytest.mark.slow
COUNT = 10


@pytest.fixture(scope="module")
def exported(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "candidates.parquet"
    done = adseq(ran.home, "export", "candidates", "--out", str(path), "-k", str(COUNT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return path


def test_everybody_has_a_list_of_either_kind(ran: Ran, exported: Path) -> None:
    frame = pl.read_parquet(exported)
    states = snapshot(ran.tables, "item-1", DAYS[-1])
    assert set(frame["user_id"]) == set(ran.ids(states["user_id"]))
    counts = frame.group_by("user_id", "kind").len()
    assert set(counts.filter(kind="item")["len"]) == {COUNT}
    assert set(counts.filter(kind="advertiser")["len"]) == {COUNT}
    ranks = frame.group_by("user_id", "kind").agg("rank", "score")
    assert set(ranks["rank"].list.eval(pl.element() == pl.int_range(1, pl.len() + 1)).list.all()) == {True}
    assert set(ranks["score"].list.eval(pl.element().diff().fill_null(0) <= 0).list.all()) == {True}


def test_the_advertisers_are_those_of_the_snapshot(ran: Ran, exported: Path) -> None:
    frame = pl.read_parquet(exported).filter(kind="advertiser")
    lists = candidates_snapshot(ran.tables, "advertiser-1", DAYS[-1]).head(20)
    for user, expected in zip(ran.ids(lists["user_id"]), lists["advertiser_ids"].to_list(), strict=True):
        assert frame.filter(user_id=user)["advertiser_id"].to_list() == expected[:COUNT]


def test_the_items_are_those_that_the_service_ranks_first(ran: Ran, exported: Path) -> None:
    """Without a context, and without what the service leaves out by country and availability."""
    frame = pl.read_parquet(exported).filter(kind="item")
    users = frame["user_id"].unique().sort().gather_every(40).to_list()
    everything = {"filters": {"include_unavailable": True}, "k": 500}
    with TestClient(create_app(Settings(home=ran.home.root)), base_url="http://127.0.0.1") as client:
        for user in users:
            answer = client.post("/candidates", json={"user_id": user, **everything}).json()
            scores = {each["item_id"]: each["score"] for each in answer["candidates"]}
            mine = frame.filter(user_id=user)
            shared = [(scores[item], score) for item, score in mine.select("item_id", "score").rows() if item in scores]
            assert len(shared) >= COUNT // 2
            np.testing.assert_allclose(*np.array(shared).T, atol=1e-4)


def test_csv_has_the_same_rows(ran: Ran, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "candidates.csv"
    assert adseq(ran.home, "export", "candidates", "--out", str(path), "-k", str(COUNT)).returncode == 0
    frame = pl.read_csv(path, schema_overrides={"rank": pl.Int32, "score": pl.Float32})
    expected = pl.read_parquet(exported)
    assert frame.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(frame["score"], expected["score"], rtol=1e-5)


def test_what_cannot_be_done_is_said(ran: Ran, tmp_path: Path) -> None:
    done = adseq(ran.home, "export", "candidates", "--out", str(tmp_path / "candidates.xlsx"))
    assert (done.returncode, "name it .parquet or .csv" in done.stderr) == (2, True)
    done = adseq(Home(tmp_path / "empty"), "export", "candidates", "--out", str(tmp_path / "candidates.csv"))
    assert (done.returncode, "adseq run" in done.stderr) == (2, True)
    assert not list(tmp_path.glob("candidates*"))

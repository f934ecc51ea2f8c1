"""Everybody's candidates in a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.retrieval.index import build_index
from ml.retrieval.lists import Ragged, RankedLists
from pipelines.cli.export import UserLists, UserPlace, _advertisers, _items, _written, lists_by_country
from serving.app import create_app
from settings import IndexSettings, Settings
from tests.assets.world import DAYS, adseq
from tests.flow import Ran
from warehouse.as_of import events_as_of
from warehouse.best_ads import NO_AD, OFFER_SCHEMA
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.eligibility import Eligibility
from warehouse.home import Home
from warehouse.states import candidates_snapshot, snapshot

pytestmark = pytest.mark.slow
COUNT = 10
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


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


def test_the_items_are_those_that_the_home_feed_ranks_first(ran: Ran, exported: Path) -> None:
    """All that the export gives is in the feed, and all that the feed ranks as high is in the export. The service knows
    the newest events of a history only, the export all of them."""
    frame = pl.read_parquet(exported).filter(kind="item")
    users = frame["user_id"].unique().sort().gather_every(20).to_list()
    events = events_as_of(ran.tables, ran.landing, DAYS[-1], ["user_id", "item_id"])
    restricted = 0
    with TestClient(create_app(Settings(home=ran.home.root)), base_url="http://127.0.0.1") as client:
        for user in users:
            answer = client.post("/candidates", json={"user_id": user, "k": 500}).json()
            own = set(events.filter(user_id=ran.key(user).decode())["item_id"])
            feed = {each["item_id"]: each["score"] for each in answer["candidates"] if each["item_id"] not in own}
            mine = dict(frame.filter(user_id=user).sort("rank").select("item_id", "score").rows())
            assert set(mine) <= set(feed)
            np.testing.assert_allclose([feed[item] for item in mine], list(mine.values()), atol=1e-4)
            np.testing.assert_allclose(sorted(feed.values(), reverse=True)[:COUNT], list(mine.values()), atol=1e-4)
            catalogue = client.app.state.service.served.catalogue  # type: ignore[attr-defined]
            listed = {catalogue.attributes.item_id[row] for row in catalogue.listed.tolist()}
            restricted += bool(listed - set(feed) - own)
    assert restricted > 2  # users in countries that some items do not ship to


def _ads(item_ids: list[str], random: np.random.Generator, count: int) -> pl.DataFrame | None:
    """Ads of some of the items, a third of them paused, a third with countries; none where ``count`` is 0."""
    rows = [
        {
            "ad_id": f"a{number}",
            "item_id": str(random.choice(item_ids)),
            "bid": float(random.random()),
            "status": "paused" if random.random() < 1 / 3 else None,
            "countries": ["de"] if random.random() < 1 / 3 else None,
        }
        for number in range(count)
    ]
    return pl.DataFrame(rows, schema=pl.Schema(SCHEMAS[LandingTable.ads])) if rows else None


@given(st.data())
@settings(max_examples=40)
def test_nobody_is_given_what_the_rule_does_not_allow(data: st.DataObject) -> None:
    """Stock, countries and histories of any kind, against a user at a time by brute force."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    items, users, count = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12)), data.draw(st.integers(1, 8))
    words = random.choice(np.array(["in stock", "OutOfStock", "0", "auf Lager", None]), items).tolist()
    places = [None if random.random() < 0.4 else random.choice(["DE", "us", "FR"], 2).tolist() for _ in range(items)]
    ids = [f"i{row}" for row in range(items)]
    schema = pl.Schema({"item_id": pl.String(), "availability": pl.String(), "countries": pl.List(pl.String())})
    stock = pl.DataFrame({"item_id": ids, "availability": words, "countries": places}, schema=schema)
    rule = Eligibility.of(stock, _ads(ids, random, data.draw(st.integers(0, 60))))
    vectors = random.normal(size=(items, 4)).astype(np.float32)
    own = Ragged.from_pairs(random.integers(0, users, 3 * users), random.integers(-1, items, 3 * users), users)
    country = pl.Series(random.choice(np.array(["DE", "US", "", None]), users).tolist(), dtype=pl.String)
    queries = random.normal(size=(users, 4)).astype(np.float32)
    people, index = UserPlace(queries, own, country), build_index(vectors, IndexSettings())
    listed = lists_by_country(index, people, rule, instant=NOON, count=count)
    found = listed.lists
    for user in range(users):
        allowed = rule.mask(country[user] or None, NOON)
        allowed[own.items[own.query_rows == user][own.items[own.query_rows == user] >= 0]] = False
        scores = np.where(allowed, vectors @ queries[user], -np.inf)
        best = np.argsort(-scores, kind="stable")[: min(count, allowed.sum())]
        shown = found.items[user][found.items[user] >= 0]
        assert allowed[shown].all()
        np.testing.assert_allclose(found.scores[user][: len(shown)], scores[best], atol=1e-5)
        given = [None if (offer := rule.offer(country[user], row)) is None else offer.ad_id for row in shown.tolist()]
        named = [None if row == NO_AD else rule.offers["ad_id"][row] for row in listed.ads[user].tolist()]
        assert named == given + [None] * (count - len(shown))


def test_csv_has_the_same_rows(ran: Ran, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "candidates.csv"
    assert adseq(ran.home, "export", "candidates", "--out", str(path), "-k", str(COUNT)).returncode == 0
    frame = pl.read_csv(path, schema_overrides={"rank": pl.Int32, "score": pl.Float32, "bid": pl.Float64})
    expected = pl.read_parquet(exported)
    assert frame.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(frame["score"], expected["score"], rtol=1e-5)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_the_contract_lets_be_null_is_null_in_the_file(tmp_path: Path, suffix: str) -> None:
    """An item without an advertiser, an ad without a bid, and a user whose external id is not known."""
    users = pl.Series("user_id", ["ann", None])
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "advertiser_id": [None, "x", "y"]})
    offers = pl.DataFrame({"ad_id": ["1", "2"], "bid": [None, 0.5], "bid_kind": [None, "cpc"]}, schema=OFFER_SCHEMA)
    found = UserLists(
        RankedLists(np.array([[2, 0], [1, -1]]), np.array([[0.5, 0.25], [1.0, -np.inf]], np.float32)),
        np.array([[1, 0], [NO_AD, NO_AD]], np.int32),
    )
    lists = pl.DataFrame({"user_id": users, "advertiser_ids": [["x"], ["y"]], "scores": [[2.0], [3.0]]})
    path = tmp_path / f"candidates.{suffix}"
    with _written(path) as write:
        write(_items(users, found, items, offers))
        write(_advertisers(lists.cast({"scores": pl.List(pl.Float32)}), 1))
    frame = pl.read_parquet(path) if suffix == "parquet" else pl.read_csv(path, schema_overrides={"ad_id": pl.String})
    assert frame.select("user_id", "item_id", "advertiser_id", *OFFER_SCHEMA).rows() == [
        ("ann", "c", "y", "2", 0.5, "cpc"),
        ("ann", "a", None, "1", None, None),
        (None, "b", "x", None, None, None),
        ("ann", None, "x", None, None, None),
        (None, None, "y", None, None, None),
    ]


def test_what_cannot_be_done_is_said(ran: Ran, tmp_path: Path) -> None:
    done = adseq(ran.home, "export", "candidates", "--out", str(tmp_path / "candidates.xlsx"))
    assert (done.returncode, "name it .parquet or .csv" in done.stderr) == (2, True)
    done = adseq(Home(tmp_path / "empty"), "export", "candidates", "--out", str(tmp_path / "candidates.csv"))
    assert (done.returncode, "adseq run" in done.stderr) == (2, True)
    assert not list(tmp_path.glob("candidates*"))

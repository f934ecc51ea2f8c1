"""Relevance from end to end: people rate pairs; the next day learns, trims, measures, and notices a lost feature."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from assets.common.workspace import Workspace
from assets.steps.relevance_versions import relevance_version
from assets.steps.score_candidates import SCORED_CANDIDATES
from serving.app import create_app
from serving.service import Service
from settings import Settings
from tests.assets.world import DAYS, LATER, copy_of, days_of, execute
from tests.flow import Ran
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
RATERS, RATED = ("ann", "bob"), 45
"""With the day's own, so many labels that a model is trained even if the day before trained one."""

TIMES = 20
"""So many times the requests of the tiny world, which alone has too few for monitoring to have bounds."""


def rate(home: Home) -> None:
    """Two people judge the first pairs of the queue, as the page /label does: alike, but for one point now and then."""
    with TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1") as client:
        for rater in RATERS:
            for number in range(RATED):
                pair = client.post("/labels/next", json={"rater_id": rater}).json()["pair"]
                place = {"subject_item_id": pair["subject"]["item_id"]} if pair["subject"] else {"query": pair["query"]}
                label = 1 + number % 4 + (rater == "bob" and number % 5 == 0)
                row = {"surface": pair["surface"], **place, "item_id": pair["candidate"]["item_id"], "label": label}
                assert client.post("/labels", json={"rater_id": rater, "labels": [row]}).json()["accepted"] == 1


def multiply(requests: pl.DataFrame) -> pl.DataFrame:
    names = [pl.format("{}-{}", "request_id", pl.lit(number)) for number in range(TIMES)]
    return pl.concat([requests.with_columns(request_id=name) for name in names])


def land_a_day_whose_feed_has_lost_its_titles(home: Home) -> None:
    """Give the days before, and the day that has landed, more requests; and the day a feed without titles."""
    tables, landing = Tables(home.tables), Landing(home.landing)
    for day in DAYS:
        scored = tables.read(SCORED_CANDIDATES, {"day": day}).drop("day", strict=False)
        tables.write(SCORED_CANDIDATES, multiply(scored), {"day": day})
    impressions = pl.concat([pl.read_parquet(path) for path in landing.files(LandingTable.impressions, LATER)])
    landing.write(LandingTable.impressions, LATER, multiply(impressions))
    feeds = [pl.read_parquet(path) for day in (None, *DAYS, LATER) for path in landing.files(LandingTable.items, day)]
    items = pl.concat(feeds).unique("item_id", keep="last", maintain_order=True)
    landing.write(LandingTable.items, LATER, items.with_columns(title=pl.lit(None, pl.String)))


@pytest.fixture(scope="module")
def walked(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, dict[str, Any]]]:
    """The home after the day, and the metadata of the day's assets."""
    home = copy_of(ran.home, tmp_path_factory.mktemp("walk") / "home", with_day=LATER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "now", lambda service: datetime.combine(LATER, time(12), UTC))
        rate(home)
    land_a_day_whose_feed_has_lost_its_titles(home)
    [metadata] = execute(home, days_of([LATER]))
    return home, metadata


def test_the_next_day_shows_how_far_the_raters_agree(walked: tuple[Home, dict[str, dict[str, Any]]]) -> None:
    home, _ = walked
    raters = Tables(home.tables).read("rater_agreement", {"day": LATER})
    assert set(RATERS) <= set(raters["rater_id"])
    assert raters.filter(pl.col("rater_id").is_in(RATERS))["pairs"].to_list() == [RATED, RATED]


def test_the_model_takes_the_labels_in_and_is_published(walked: tuple[Home, dict[str, dict[str, Any]]]) -> None:
    home, metadata = walked
    workspace = Workspace(Settings(home=home.root))
    before, now = (relevance_version(workspace, day) for day in (DAYS[-1], LATER))
    assert before is not None
    assert now is not None
    trained = metadata["relevance_model"]
    given = workspace.tables.scan("relevance_labels").filter(pl.col("rater_id").is_in(RATERS)).collect()
    assert given.height == len(RATERS) * RATED
    assert trained["labels"] >= workspace.tables.scan("relevance_labels").collect().height - given.height
    assert trained["labels_that_measured"] >= given.height
    assert now.day == (LATER if trained["in_use_from_this_day"] else before.day)
    with TestClient(create_app(Settings(home=home.root)), base_url="http://127.0.0.1") as client:
        asked = {"user_id": "nobody", "surface": "search", "query": "rug", "k": 20}
        answered = client.post("/candidates", json=asked).json()
    assert answered["relevance_version"] == now.name
    assert answered["candidates"]


def test_the_scrape_shows_the_gap_to_the_holdout(walked: tuple[Home, dict[str, dict[str, Any]]]) -> None:
    home, metadata = walked
    assert metadata["relevance_scrape"]["probes"] > 0
    figures = Tables(home.tables).read("relevance_metrics", {"day": LATER, "report": "scrape"})
    gap = figures.filter(pl.col("metric") == "holdout_gap", pl.col("segment") == "all")["value"].item()
    assert gap is not None


def test_an_alarm_goes_when_a_feature_is_lost(walked: tuple[Home, dict[str, dict[str, Any]]]) -> None:
    home, _ = walked
    watched = Tables(home.tables).read("relevance_monitoring", {"day": LATER})
    warned = watched.filter(pl.col("warning"), pl.col("figure") == "coverage")
    assert "text" in set(warned["feature"])
    assert set(warned["feature"]) <= {"text", "text_style"}
    quiet = Tables(home.tables).read("relevance_monitoring", {"day": DAYS[-1]})
    assert not quiet["warning"].any()

"""The raters of the world: what they are given, how they judge, and how often they disagree."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from warehouse.contracts import STAGES, LandingTable
from warehouse.landing import Landing
from warehouse.world import TrueRelevance, WorldSettings, planted_disagreement, write_world
from warehouse.world.market.impression_log import log_impressions
from warehouse.world.market.raters import CANDIDATES_OF_A_REQUEST, RATERS, rate
from warehouse.world.simulation import build_world, live

SMALL = WorldSettings(
    history_days=60,
    initial_users=600,
    initial_items=400,
    advertisers=30,
    departments=3,
    regular_share=0.6,
    impression_days=30,
    request_share=0.1,
    relevance_labels=2400,
    labels_per_day=60,
)
LAST = SMALL.history_days - 1
PAIR = ["surface", "subject_item_id", "query", "item_id"]


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Landing:
    landing = Landing(tmp_path_factory.mktemp("world"))
    write_world(landing, SMALL, days=2)
    return landing


def labels(landing: Landing, offset: int | None = None) -> pl.DataFrame:
    day = None if offset is None else SMALL.first_daily_day + timedelta(offset)
    return pl.read_parquet(landing.folder(LandingTable.relevance_labels, day) / "part-0.parquet")


@pytest.fixture(scope="module")
def history(landing: Landing) -> pl.DataFrame:
    return labels(landing)


@pytest.fixture(scope="module")
def logged() -> pl.DataFrame:
    """The log of twenty days, with what only the world knows."""
    world = build_world(SMALL, LAST)
    days = live(world, LAST)
    return pl.concat(
        log_impressions(world, day.market.ads, day.onsite)
        for day in days
        if day.onsite is not None and day.number > LAST - 20
    )


def test_two_raters_judge_candidates_of_whole_requests(history: pl.DataFrame) -> None:
    assert 0.9 * 2 * SMALL.relevance_labels < history.height <= 2 * SMALL.relevance_labels
    request = history.group_by("labelled_at", "surface", "subject_item_id", "query").agg(
        pl.col("rater_id").n_unique(), pl.col("item_id").n_unique()
    )
    assert set(request["rater_id"]) == {2}
    assert request["item_id"].max() == CANDIDATES_OF_A_REQUEST
    assert (request["item_id"] == CANDIDATES_OF_A_REQUEST).mean() > 0.9
    assert set(history["rater_id"]) == set(RATERS)
    shares = history["surface"].value_counts(normalize=True)
    assert set(shares["surface"]) == {"related_pins", "search"}
    assert shares["proportion"].min() > 0.2


def test_every_stage_has_labels_and_no_candidate_of_a_request_is_judged_twice_by_one_rater(
    history: pl.DataFrame,
) -> None:
    counted = dict(history["stage"].value_counts().iter_rows())
    assert set(counted) >= set(STAGES[:5])
    assert min(counted[stage] for stage in STAGES[:5]) > 0.1 * history.height
    assert not history.select(*PAIR, "rater_id", "labelled_at").is_duplicated().any()


def test_labels_arrive_a_day_after_the_request(landing: Landing) -> None:
    assert labels(landing)["labelled_at"].max() < SMALL.midnight(SMALL.history_days)
    for offset in range(2):
        daily = labels(landing, offset)
        assert daily.height == 2 * SMALL.labels_per_day
        assert set(daily["labelled_at"].dt.date()) == {SMALL.first_daily_day + timedelta(offset)}


def test_labels_weighted_by_inclusion_add_up_to_the_candidates(logged: pl.DataFrame) -> None:
    """Horvitz and Thompson's totals: by stage and surface, over draws of the raters' requests, within their noise."""
    world = build_world(SMALL, LAST)
    asked = logged.filter(pl.col("complete") & (pl.col("surface") != "home_feed"))
    expected = asked.group_by("surface", "stage").len()
    draws = [
        rate(world, logged, day=day, pairs=600)
        .filter(pl.int_range(pl.len()).over(*PAIR, "labelled_at") == 0)
        .group_by("surface", "stage")
        .agg(total=(SMALL.market.complete_share / pl.col("inclusion_probability")).sum())
        for day in range(200, 260)
    ]
    total = pl.concat(draws).group_by("surface", "stage").agg(pl.col("total").sum() / len(draws))
    both = expected.join(total, on=["surface", "stage"], how="left").filter(pl.col("len") > 200)
    assert both.height >= 8
    assert (both["total"] / both["len"]).is_between(0.93, 1.07).all(), both


def test_raters_disagree_as_often_as_is_planted(landing: Landing, history: pl.DataFrame) -> None:
    world = build_world(SMALL, LAST)
    truth = TrueRelevance(world).of_candidates(history)
    planted = planted_disagreement(landing.root, history, SMALL.first_daily_day - timedelta(1))
    span = history.group_by(*PAIR, "labelled_at").agg(pl.col("label").max() - pl.col("label").min())["label"]
    error = 3 * np.sqrt(0.25 / span.len())
    assert (span > 0).mean() == pytest.approx(planted.exact, abs=error)
    assert (span > 1).mean() == pytest.approx(planted.more_than_one, abs=error)
    middle = (truth > 0.3) & (truth < 0.7)  # away from the ends of the scale, which cut the noise
    seen = history["label"].to_numpy()[middle]
    assert np.mean(seen - (1 + 4 * truth[middle])) == pytest.approx(0, abs=0.1)


def test_the_planted_disagreement_is_that_of_many_labels(logged: pl.DataFrame, landing: Landing) -> None:
    world = build_world(SMALL, LAST)
    many = pl.concat(rate(world, logged, day=day, pairs=2400).with_columns(draw=pl.lit(day)) for day in range(300, 330))
    span = many.group_by(*PAIR, "labelled_at", "draw").agg(span=pl.col("label").max() - pl.col("label").min())
    planted = planted_disagreement(landing.root, span, SMALL.first_daily_day - timedelta(1))
    assert (span["span"] > 0).mean() == pytest.approx(planted.exact, abs=0.01)
    assert (span["span"] > 1).mean() == pytest.approx(planted.more_than_one, abs=0.01)


def test_a_biased_rater_is_biased_and_the_others_are_not(logged: pl.DataFrame) -> None:
    world = build_world(SMALL, LAST)
    fair = rate(world, logged, day=400, pairs=2400)
    biased = rate(world, logged, day=400, pairs=2400, bias={"rater-3": 1.0})
    assert fair.drop("label").equals(biased.drop("label"))
    gained = fair.with_columns(gain=biased["label"] - fair["label"]).group_by("rater_id").agg(pl.col("gain").mean())
    by_rater = dict(gained.iter_rows())
    assert by_rater.pop("rater-3") > 0.6
    assert set(by_rater.values()) == {0.0}


def test_a_day_without_requests_has_no_labels_but_the_columns(logged: pl.DataFrame) -> None:
    world = build_world(SMALL, LAST)
    none = rate(world, logged.clear(), day=1, pairs=60)
    assert none.height == 0
    assert none.schema == rate(world, logged, day=1, pairs=60).schema

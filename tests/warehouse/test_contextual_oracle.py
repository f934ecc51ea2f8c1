"""The contextual oracle knows the market: it agrees with the market that made the log, computed by another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.assets.world import WORLD
from warehouse.landing import Landing
from warehouse.world import TrueRelevance, contextual_ranking, write_world
from warehouse.world.contextual_oracle import DeliveryOdds
from warehouse.world.market.downstream import IMPRESSED, send
from warehouse.world.market.legacy_generators import Shelves, propose
from warehouse.world.market.luck import Luck
from warehouse.world.market.requests import HOME_FEED, RELATED_PINS, queries
from warehouse.world.simulation import build_world, live

SMALL = WORLD.model_copy(update={"history_days": 40, "initial_items": 600, "request_share": 0.2, "impression_days": 2})
DAY = 39


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Landing:
    landing = Landing(tmp_path_factory.mktemp("world"))
    write_world(landing, SMALL, 0)
    return landing


@pytest.fixture(scope="module")
def impressions(landing: Landing) -> pl.DataFrame:
    return pl.read_parquet(landing.root / "impressions" / "history" / "*.parquet").filter(
        pl.col("surface") == "related_pins"
    )


@pytest.fixture(scope="module")
def item_ids(landing: Landing) -> list[str]:
    return list(pl.read_parquet(landing.root / "items" / "history" / "*.parquet")["item_id"].unique().sort())


def test_its_odds_are_the_shares_of_many_days_with_other_luck() -> None:
    world, times = build_world(SMALL, DAY), 400
    lived = list(live(world, DAY))[-1]
    assert lived.onsite is not None
    requests = lived.onsite.requests
    few = requests.take(np.flatnonzero(requests.surface == RELATED_PINS)[:6])
    day = replace(lived.market.day(DAY), participation=np.ones(len(lived.market.ads)))
    expected = np.maximum(DeliveryOdds(world, day, times=40).of(few), 0)
    shelves, generator = Shelves.of(world, day.best_ad, DAY), SMALL.generator("other days")
    delivered = np.zeros_like(expected)
    for seed in range(times):
        pairs = propose(world, shelves, few, generator).pairs
        outcome = send(day, few, pairs, spent=np.zeros(len(day.ads)), luck=Luck(900 + seed))
        shown = outcome.stage >= IMPRESSED
        delivered[pairs.request[shown], pairs.item[shown]] += 1 / times
    assert abs(expected.sum() - delivered.sum()) < 0.05 * delivered.sum()
    often = (delivered > 0.05) | (expected > 0.05)
    assert often.sum() > 20  # something was compared
    error = np.abs(expected - delivered)[often]
    assert error.mean() < 0.04
    assert error.max() < 0.25


def test_it_finds_more_of_what_was_shown_than_the_most_shown_of_the_category(
    landing: Landing, impressions: pl.DataFrame, item_ids: list[str]
) -> None:
    shown = impressions.filter(pl.col("stage").is_in(["impressed", "clicked", "converted"]))
    requests = shown["request_id"].unique().sort().to_list()
    ranking = contextual_ranking(landing.root, SMALL.day_date(DAY), requests, item_ids=item_ids, times=6, depth=10)
    assert ranking["request_id"].unique(maintain_order=True).to_list() == requests
    assert ranking.group_by("request_id").agg(pl.col("rank").max())["rank"].max() == 10
    found = shown.join(ranking, on=["request_id", "item_id"], how="semi").height / shown.height
    category = pl.read_parquet(landing.root / "items" / "history" / "*.parquet").select("item_id", "category")
    beside = shown.join(category, on="item_id").group_by("category", "item_id").len()
    most_shown = beside.sort("len", "item_id", descending=True).group_by("category").head(10)
    asked = shown.select("request_id", item="item_id", item_id="subject_item_id").join(category, on="item_id")
    in_category = asked.join(
        most_shown, left_on=["category", "item"], right_on=["category", "item_id"], how="semi"
    ).height
    assert found > 1.2 * in_category / shown.height
    again = contextual_ranking(landing.root, SMALL.day_date(DAY), requests[3:5], item_ids=item_ids, times=6, depth=10)
    assert again["request_id"].unique(maintain_order=True).to_list() == requests[3:5]


@pytest.mark.parametrize(
    "request_id", ["r00039-999999", "r00001-000000", "r00040-000000", "r00039--00001", "x00039x000001", "mine"]
)
def test_a_request_of_another_log_is_named(landing: Landing, item_ids: list[str], request_id: str) -> None:
    with pytest.raises(ValueError, match=r"request"):
        contextual_ranking(landing.root, SMALL.day_date(DAY), [request_id], item_ids=item_ids, times=1, depth=10)


def test_true_relevance_is_that_of_the_log(landing: Landing) -> None:
    world = build_world(SMALL, DAY)
    lived = list(live(world, DAY))[-1]
    assert lived.onsite is not None
    requests, pairs = lived.onsite.requests, lived.onsite.candidates.pairs
    beside = requests.surface[pairs.request] == RELATED_PINS
    subject, item = requests.subject[pairs.request][beside], pairs.item[beside]
    ids = world.catalogue.items.ids
    found = TrueRelevance.of(landing.root, SMALL.day_date(DAY)).of_pairs(ids.gather(subject), ids.gather(item))
    assert np.allclose(found, lived.onsite.outcome.relevance[beside])
    assert len(set(np.round(found, 3))) > 20


def test_true_relevance_to_queries_is_that_of_the_log(landing: Landing) -> None:
    world = build_world(SMALL, DAY)
    lived = list(live(world, DAY))[-1]
    assert lived.onsite is not None
    requests, pairs = lived.onsite.requests, lived.onsite.candidates.pairs
    ids, subject = world.catalogue.items.ids, pl.Series(requests.subject)
    candidates = pl.DataFrame(
        {
            "subject_item_id": ids.gather(np.maximum(requests.subject, 0)),
            "query": queries(world, requests),
        }
    ).with_columns(subject_item_id=pl.when(subject >= 0).then("subject_item_id"))[pairs.request]
    candidates = candidates.with_columns(item_id=ids.gather(pairs.item))
    truth = TrueRelevance.of(landing.root, SMALL.day_date(DAY))
    found = truth.of_candidates(candidates)
    placed = requests.surface[pairs.request] != HOME_FEED
    assert np.allclose(found[placed], lived.onsite.outcome.relevance[placed])
    assert np.isnan(found[~placed]).all()
    unknown = candidates[:1].with_columns(
        subject_item_id=pl.lit(None, pl.String), query=pl.lit("a word of another log")
    )
    assert np.isnan(truth.of_candidates(unknown)).all()
    invented = pl.lit("no item of this world")
    few = candidates.filter(pl.Series(placed))[:50]
    for column in ("subject_item_id", "item_id"):
        only_given = pl.when(pl.col(column).is_not_null(), pl.int_range(pl.len()) % 2 == 0)
        changed = few.with_columns(only_given.then(invented).otherwise(column).alias(column))
        again = truth.of_candidates(changed)
        same = (changed[column].eq_missing(few[column])).to_numpy()
        assert not same.all()
        assert np.isnan(again[~same]).all()
        assert np.array_equal(again[same], found[placed][:50][same])
    nobody = pl.DataFrame({"subject_item_id": ["x"], "query": pl.Series([None], dtype=pl.String), "item_id": ["y"]})
    assert np.isnan(truth.called_relevant(truth.of_candidates(nobody), label=4)).all()


def test_raters_call_relevant_what_the_truth_says(landing: Landing) -> None:
    truth = TrueRelevance.of(landing.root, SMALL.day_date(DAY))
    generator = np.random.default_rng(0)
    relevance = np.repeat(generator.random(200), 500)
    label = np.rint(1 + 4 * relevance + generator.normal(0, SMALL.rater_noise, len(relevance)))
    found = truth.called_relevant(relevance, label=4).reshape(200, 500).mean(axis=1)
    assert np.allclose(found, (label >= 4).reshape(200, 500).mean(axis=1), atol=0.08)
    assert np.isnan(truth.called_relevant(np.array([np.nan]), label=4)).all()

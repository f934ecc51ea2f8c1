"""The contextual oracle knows the funnel: it agrees with the funnel that made the log, drawn by another way."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.assets.world import WORLD
from warehouse.landing import Landing
from warehouse.world import TrueRelevance, contextual_ranking, write_world
from warehouse.world.contextual_oracle import _Funnel
from warehouse.world.funnel import IMPRESSED, RELATED_PINS, draw_requests, lead_through, log_requests
from warehouse.world.simulation import build_world, live

SMALL = WORLD.model_copy(update={"history_days": 40, "initial_items": 120, "request_share": 0.2, "impression_days": 2})
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


def test_what_it_draws_is_what_the_log_draws() -> None:
    """Two ways to draw the same funnel: the shares of impressions agree within their noise."""
    world, times = build_world(SMALL, DAY), 400
    lived = list(live(world, DAY))[-1]
    every = draw_requests(world, lived.state, DAY, SMALL.generator("funnel", DAY))
    few = every.take(np.flatnonzero(every.surface == RELATED_PINS)[:5])
    columns = np.arange(world.catalogue.items.count + 1)
    columns[-1] = -1
    worth = _Funnel.of(world, lived.state, few, DAY).worth(times, columns, SMALL.generator("one way"))
    found = np.floor(np.maximum(worth, 0))
    again = np.tile(np.arange(5), times)
    other = lead_through(world, lived.state, few.take(again), day=DAY, generator=SMALL.generator("other way"))
    expected = np.zeros_like(found)
    request, slot = np.nonzero(other.valid & (other.stage >= IMPRESSED))
    np.add.at(expected, (again[request], other.item[request, slot]), 1)
    assert abs(found.sum() - expected.sum()) < 0.05 * expected.sum()
    noise = 5 * np.sqrt(found + expected + 1)
    assert (np.abs(found - expected) <= noise).all()
    often = expected > 40
    assert often.sum() > 10  # something was compared


def test_it_finds_more_of_what_was_shown_than_the_most_shown_of_the_category(
    landing: Landing, impressions: pl.DataFrame, item_ids: list[str]
) -> None:
    shown = impressions.filter(pl.col("stage").is_in(["impressed", "clicked", "converted"]))
    requests = shown["request_id"].unique().sort().to_list()
    ranking = contextual_ranking(landing.root, SMALL.day_date(DAY), requests, item_ids=item_ids, times=60, depth=10)
    assert ranking["request_id"].unique(maintain_order=True).to_list() == requests
    assert ranking.group_by("request_id").agg(pl.col("rank").max())["rank"].max() == 10
    found = shown.join(ranking, on=["request_id", "item_id"], how="semi").height / shown.height
    anything = 10 / len(item_ids)
    assert found > 6 * anything
    again = contextual_ranking(landing.root, SMALL.day_date(DAY), requests[3:5], item_ids=item_ids, times=60, depth=10)
    assert again["request_id"].unique(maintain_order=True).to_list() == requests[3:5]


@pytest.mark.parametrize("request_id", ["r00039-999999", "mine"])
def test_a_request_of_another_log_is_named(landing: Landing, item_ids: list[str], request_id: str) -> None:
    with pytest.raises(ValueError, match=r"request"):
        contextual_ranking(landing.root, SMALL.day_date(DAY), [request_id], item_ids=item_ids, times=1, depth=10)


def test_true_relevance_is_that_of_the_log(landing: Landing, impressions: pl.DataFrame) -> None:
    world = build_world(SMALL, DAY)
    logged = log_requests(world, list(live(world, DAY))[-1].state, DAY).filter(pl.col("surface") == "related_pins")
    found = TrueRelevance.of(landing.root, SMALL.day_date(DAY)).of_pairs(logged["subject_item_id"], logged["item_id"])
    assert np.allclose(found, logged["relevance"].to_numpy())
    assert len(set(np.round(found, 3))) > 20

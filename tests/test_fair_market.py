"""The market is fair: neither a rule nor the parts without training find most of what the contextual oracle finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from ml.evaluation.contextual_requests import HiddenItems, context_evaluation
from ml.evaluation.intervals import confidence_interval
from ml.evaluation.model_lists import baseline_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import newest_window
from ml.evaluation.untrained_parts import choose_weights
from ml.examples.pairs import LabelRule
from ml.examples.period import TrainingPeriod
from ml.features.dataset import build_dataset
from ml.features.event_log import row_numbers
from ml.retrieval.lists import RankedLists
from settings import ExampleSettings, Settings, TrainingSettings
from warehouse.contracts import DEFAULT_POSITIVES, EVENT_NAMES
from warehouse.eligibility import Eligibility
from warehouse.hidden_items import hidden_pairs
from warehouse.landing import Landing
from warehouse.world import WorldSettings, contextual_ranking, write_world

pytestmark = pytest.mark.slow
WORLD = WorldSettings()
SETTINGS = Settings(training=TrainingSettings(validation_users=400))
REQUESTS = 600
RUNS = 6


def training_period(root: Path) -> TrainingPeriod:
    def read(table: str) -> pl.DataFrame:
        return pl.read_parquet(root / table / "history" / "*.parquet")

    return TrainingPeriod(
        events=read("events").unique(["user_id", "event_id"]).sort("user_id", "event_time", "event_id"),
        items=read("items").with_columns(listed_from="available_from").sort("item_id"),
        users=read("users"),
        end=WORLD.midnight(WORLD.history_days).timestamp(),
        rule=LabelRule(DEFAULT_POSITIVES, 28.0, False, ExampleSettings().label_weights),
        event_names=list(EVENT_NAMES),
    )


def eligibility(root: Path, period: TrainingPeriod) -> HiddenItems:
    """The items that a request could not show, by the ads as they were at the end of the period."""
    ads, country = pl.read_parquet(root / "ads" / "history" / "*.parquet"), period.users.select("user_id", "country")

    def hidden(requests: pl.DataFrame, item_ids: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        stock = item_ids.to_frame().join(period.items, on="item_id", how="left", maintain_order="left")
        return hidden_pairs(
            Eligibility.of(stock, ads), requests.join(country, on="user_id", how="left", maintain_order="left")
        )

    return hidden


def test_a_rule_finds_half_and_parts_without_training_seventy_percent_of_the_oracle_at_most(tmp_path: Path) -> None:
    write_world(Landing(tmp_path), WORLD, days=0)
    impressions = pl.scan_parquet(tmp_path / "impressions" / "history" / "*.parquet")
    beside = impressions.filter(pl.col("surface") == "related_pins").collect()
    period = training_period(tmp_path)
    earlier = period.until(period.end - period.window)
    dataset = build_dataset(
        earlier.events,
        earlier.items,
        earlier.users,
        settings=SETTINGS.features,
        event_names=earlier.event_names,
        seed=0,
    )
    home_feed = newest_window(period, dataset, SETTINGS)
    hidden = eligibility(tmp_path, period)
    evaluation = context_evaluation(
        home_feed, period, beside, features=SETTINGS.features, maximum=REQUESTS, seed=0, hidden_items=hidden
    )
    assert evaluation is not None
    asked = evaluation.asked
    items = asked.dataset.features.item_ids.gather(asked.queries.candidates)
    requests = evaluation.requests["request_id"]
    ranking = contextual_ranking(
        tmp_path,
        WORLD.day_date(WORLD.history_days - 1),
        requests.to_list(),
        item_ids=items.to_list(),
        times=RUNS,
        depth=10,
    )
    oracle = RankedLists.from_places(
        row_numbers(requests, ranking["request_id"]),
        ranking["rank"].to_numpy() - 1,
        row_numbers(items, ranking["item_id"]),
        queries=len(requests),
        depth=10,
    )

    def recall(lists: RankedLists) -> float:
        return confidence_interval(lists, asked.queries.positives, 10, samples=0).estimate

    best = recall(oracle)
    assert recall(baseline_lists(ModelName.rule, asked, 10)) <= 0.5 * best
    assert recall(choose_weights(earlier, beside, SETTINGS, hidden).lists(asked, SETTINGS, 10)) <= 0.7 * best
    assert best < 0.95  # the market keeps its luck

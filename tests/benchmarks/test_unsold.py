"""Items that nobody buys, planted among those that are bought."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from benchmarks.unsold import PREFIX, Figures, measure, table_of, with_unsold
from ml.examples.period import TrainingPeriod
from tests.ml.worlds import START, instant, planted_period, small_settings

COPIES = 120


def launched(period: TrainingPeriod) -> TrainingPeriod:
    """Return the period with items that begin to sell one after the other, which the feed has listed all along."""
    days = np.random.default_rng(3).uniform(-60, 100, len(period.items))
    launch = pl.Series("launch", [START + timedelta(days=float(day)) for day in days])
    events = period.events.join(
        period.items.select("item_id", launch), on="item_id", how="left", maintain_order="left"
    ).filter(pl.col("event_time") >= pl.col("launch"))
    return replace(period, events=events.drop("launch"))


@pytest.fixture(scope="module")
def found() -> Figures:
    """A fifth of the catalogue is copies that have always been listed."""
    period = launched(planted_period(users=300, items=480, kinds=2, events_per_user=24))
    settings = small_settings(features={"cross_fit_folds": 2}, training={"epochs": 3})
    return measure("copies", with_unsold(period, COPIES, dated=False, seed=0), settings)


def test_a_model_shows_items_that_nobody_buys_no_more_than_their_content_deserves(found: Figures) -> None:
    """At chance they would take a fifth of the places; where only items that sell are negatives, they take 14 %."""
    assert found.unsold_items == pytest.approx(COPIES / 600)
    assert found.unsold < 0.02
    assert found.recall[100] > 0.7


def test_copies_have_the_attributes_of_their_originals_at_every_instant() -> None:
    period = planted_period(users=20, items=24, kinds=4)
    planted = with_unsold(period, 10, dated=True, seed=1).until(instant(50))
    copies = planted.items.filter(pl.col("item_id").str.starts_with(PREFIX))
    assert len(copies) == 10
    originals = set(period.items.select("category", "price").rows())
    assert set(copies.select("category", "price").rows()) <= originals
    assert not planted.events["item_id"].is_in(copies["item_id"].implode()).any()


def test_a_table_says_what_the_copies_cost(found: Figures) -> None:
    notes = table_of([found, found]).notes
    assert len(notes) == 1
    assert "Recall@100 lower by 0.0000" in notes[0]

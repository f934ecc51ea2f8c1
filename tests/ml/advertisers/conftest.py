"""A shop by hand, and a planted world with an advertiser model trained on it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import polars as pl
import pytest

from ml.evaluation.advertiser_queries import AdvertiserQueries, advertiser_queries
from ml.examples.advertiser_period import AdvertiserData, AdvertiserPeriod, advertiser_examples, cross_fitted
from ml.training.advertiser_task import AdvertiserFit, fit_advertisers
from tests.ml.advertisers.shops import SETTINGS, data_of, period_of
from tests.ml.worlds import (
    START,
    instant,
    item_frame,
    planted_period,
)

SHOP = item_frame(
    ["i1", "i2", "i3", "i4", "i5"],
    advertiser_id=["a", "a", "a", "b", "unknown"],
    category=["Home > Chairs", "Home > Chairs", "Home > Lamps", None, "Home"],
    price=[10.0, 40.0, None, 40.0, 1.0],
    embedding=[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]],
    # The feed is late: events show each item first.
    listed_from=[START + timedelta(days=39)] * 5,
)


VISITS: list[tuple[str, float, str, str | None, str | None]] = [
    ("u", 1, "page_visit", "i1", "a"),
    ("u", 2, "page_visit", "i2", None),  # the item's advertiser stands in
    ("u", 3, "page_visit", "i4", "b"),
    ("u", 20, "page_visit", "i3", "a"),
    ("u", 31, "checkout", "i1", "a"),
    ("u", 32, "checkout", "i2", "a"),
    ("u", 33, "signup", None, "c"),
    ("u", 34, "add_to_cart", "i5", "unknown"),
    ("u", 35, "add_to_cart", "i4", "b"),
    ("v", 33, "signup", None, "c"),
]


@pytest.fixture
def shop() -> AdvertiserPeriod:
    return period_of(VISITS, SHOP)


@pytest.fixture(scope="module")
def planted() -> AdvertiserPeriod:
    """Each kind of items has an advertiser, which no event names."""
    period = planted_period()
    nameless = period.events.with_columns(advertiser_id=pl.lit(None, pl.String))
    return AdvertiserPeriod.of(dataclasses.replace(period, events=nameless))


@pytest.fixture(scope="module")
def data(planted: AdvertiserPeriod) -> AdvertiserData:
    return data_of(planted.until(instant(85)))


@pytest.fixture(scope="module")
def fitted(planted: AdvertiserPeriod, data: AdvertiserData, tmp_path_factory: pytest.TempPathFactory) -> AdvertiserFit:
    known = planted.until(instant(85))
    crossed, examples = cross_fitted(data, known, SETTINGS), advertiser_examples(known, data, SETTINGS)
    return fit_advertisers(crossed, examples, SETTINGS, 8, tmp_path_factory.mktemp("fit"), progress=False)


@pytest.fixture(scope="module")
def queries(planted: AdvertiserPeriod, data: AdvertiserData) -> AdvertiserQueries:
    return advertiser_queries(planted, data, instant(85), SETTINGS, 1000, 1000)

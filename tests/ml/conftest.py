"""Worlds with a planted pattern and the models trained on them, made once for the tests that only read them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import pytest

from ml.evaluation.advertiser_queries import AdvertiserQueries, advertiser_queries
from ml.examples.advertiser_period import AdvertiserData, AdvertiserPeriod, advertiser_examples, cross_fitted
from ml.examples.period import Prepared, TrainingPeriod, prepare
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.artifact import ModelArtifact
from ml.models.item_model import TwoTower
from ml.training.advertiser_task import AdvertiserTask
from ml.training.fit import Fit, fit
from ml.training.item_task import ItemTask
from settings import Settings
from tests.ml.shops import SETTINGS, SHOP, VISITS, data_of, period_of
from tests.ml.worlds import EVENT_NAMES, instant, planted_period, small_settings

TRAINED_UNTIL = 85.0  # day; the planted world goes on to day 100


@pytest.fixture(scope="session")
def settings() -> Settings:
    return small_settings()


@pytest.fixture(scope="session")
def period() -> TrainingPeriod:
    return planted_period()


@pytest.fixture(scope="session")
def prepared(period: TrainingPeriod, settings: Settings) -> Prepared:
    """What is learnt from before ``TRAINED_UNTIL``."""
    return prepare(period.until(instant(TRAINED_UNTIL)), settings)


@pytest.fixture(scope="session")
def trained(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Fit[TwoTower]:
    task = ItemTask.of(period.until(instant(TRAINED_UNTIL)), prepared, settings)
    return fit(task, 6, Path(tmp_path_factory.mktemp("checkpoints")))


@pytest.fixture(scope="session")
def artifact(trained: Fit[TwoTower], prepared: Prepared, settings: Settings) -> ModelArtifact:
    return ModelArtifact(trained.network, prepared.dataset.basis, settings, EVENT_NAMES, instant(TRAINED_UNTIL))


@pytest.fixture
def shop() -> AdvertiserPeriod:
    return period_of(VISITS, SHOP)


@pytest.fixture(scope="session")
def planted() -> AdvertiserPeriod:
    """Each kind of items has an advertiser, which no event names."""
    period = planted_period()
    nameless = period.events.with_columns(advertiser_id=pl.lit(None, pl.String))
    return AdvertiserPeriod.of(dataclasses.replace(period, events=nameless))


@pytest.fixture(scope="session")
def data(planted: AdvertiserPeriod) -> AdvertiserData:
    return data_of(planted.until(instant(85)))


@pytest.fixture(scope="session")
def fitted(
    planted: AdvertiserPeriod, data: AdvertiserData, tmp_path_factory: pytest.TempPathFactory
) -> Fit[AdvertiserNetwork]:
    known = planted.until(instant(85))
    crossed, examples = cross_fitted(data, known, SETTINGS), advertiser_examples(known, data, SETTINGS)
    return fit(AdvertiserTask(crossed, examples, SETTINGS), 8, tmp_path_factory.mktemp("fit"), progress=False)


@pytest.fixture(scope="session")
def queries(planted: AdvertiserPeriod, data: AdvertiserData) -> AdvertiserQueries:
    return advertiser_queries(planted, data, instant(85), settings=SETTINGS, maximum=1000, index_size=1000)

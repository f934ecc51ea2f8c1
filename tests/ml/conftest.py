"""A world with a planted pattern and a model trained on it, made once for the tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml.examples.period import Prepared, TrainingPeriod, prepare
from ml.models.artifact import ModelArtifact
from ml.training.fit import Fit
from ml.training.fitting import fit_prepared
from settings import Settings
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
) -> Fit:
    return fit_prepared(
        period.until(instant(TRAINED_UNTIL)), prepared, settings, 6, Path(tmp_path_factory.mktemp("checkpoints"))
    )


@pytest.fixture(scope="session")
def artifact(trained: Fit, prepared: Prepared, settings: Settings) -> ModelArtifact:
    return ModelArtifact(trained.network, prepared.dataset.basis, settings, EVENT_NAMES, instant(TRAINED_UNTIL))

"""The course of a training, with a third kind of model that is two small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml.examples.period import Prepared, TrainingPeriod
from ml.models.version_directories import DEPLOYED
from ml.training import checkpoints
from ml.versions.tracking import TRAINING, Tracking
from ml.versions.train import TrainedVersion, train_version
from tests.ml.toy_task import ITEMS, SHAPE, ToyNetwork, ToyTask
from tests.ml.toy_version import ToyArtifact, ToyVersion
from tests.ml.worlds import small_settings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def tracking(home: Path) -> Tracking:
    return Tracking(f"sqlite:///{home}/mlflow.db", home / "artifacts")


@pytest.fixture(scope="module")
def trained(home: Path, tracking: Tracking, period: TrainingPeriod, prepared: Prepared) -> TrainedVersion:
    settings = small_settings(training={"learning_rate": 0.3, "fits_at_once": 1, "epochs": 60})
    version = ToyVersion(period, prepared.dataset.basis, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "OWN_PACKAGES", (*checkpoints.OWN_PACKAGES, "tests"))  # as if the toy were in ml
        return train_version(version, tracking, home / "models", name="2026-01-01", tags={"origin": "a test"})


def test_a_third_kind_of_model_takes_the_same_course(home: Path, trained: TrainedVersion) -> None:
    assert trained.version == "toy-1"
    assert list(trained.validation) == ["validation_recall_at_1"]
    assert trained.validation["validation_recall_at_1"] > 0.95
    assert sorted(path.name for path in (home / "models" / "toy-1").iterdir()) == [DEPLOYED, "evaluation"]
    artifact = ToyArtifact.load(home / "models" / "toy-1" / DEPLOYED)
    assert artifact.network.shape == SHAPE
    assert ToyTask(artifact.settings).validate(artifact.network).recall[1] > 4 / ITEMS


def test_the_course_is_in_mlflow(tracking: Tracking, trained: TrainedVersion, period: TrainingPeriod) -> None:
    runs = {run.info.run_name: run for run in tracking.client.search_runs([tracking.experiment(TRAINING)])}
    assert set(runs) == {"toy_model 2026-01-01", "toy evaluation"}
    run = runs["toy_model 2026-01-01"]
    assert run.data.params["data.events"] == str(len(period.events))
    assert run.data.metrics["epochs"] == trained.epochs
    assert run.data.metrics["validation_recall_at_1"] == pytest.approx(trained.validation["validation_recall_at_1"])
    assert run.data.tags["origin"] == "a test"
    inputs = {each.dataset.name: each.dataset for each in run.inputs.dataset_inputs}
    assert {"events", "items", "users"} <= set(inputs)
    assert json.loads(inputs["events"].profile or "")["num_rows"] == len(period.events)
    assert json.loads(inputs["events"].source) == {"path": "tables/events"}
    [model] = tracking.client.search_logged_models([run.info.experiment_id])
    assert {each.key for each in model.metrics} >= {"epochs", "validation_recall_at_1"}
    assert runs["toy evaluation"].data.tags["mlflow.parentRunId"] == trained.run_id
    assert runs["toy evaluation"].data.params["epochs"] == str(trained.epochs)
    curve = tracking.client.get_metric_history(runs["toy evaluation"].info.run_id, "validation_recall_at_1")
    assert len(curve) == trained.epochs
    assert curve[-1].value == pytest.approx(trained.validation["validation_recall_at_1"])
    assert sum(parameter.numel() for parameter in ToyNetwork().parameters()) == trained.parameters

"""One training of a model version: selection, comparison models, the deployed fit, MLflow.

Three cut-offs keep the figures honest. With T the end of the period and K the window:

    epochs are chosen on [T - 2K, T - K) by the contextual model that knows nothing from T - 2K on;
    the comparison models learn until T - K, all for that many epochs, and are reported on [T - K, T), which chose
    nothing;
    the deployed model learns until T, for the epochs that were chosen.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from lightning.pytorch.loggers import MLFlowLogger

from ml.artifact import ModelArtifact
from ml.comparison import TRAINED, ModelName, settings_of
from ml.learning import (
    TrainingPeriod,
    choose_epochs,
    cross_fitted,
    fit_prepared,
    prepare_examples,
    with_subjects,
)
from ml.prepared import Prepared
from ml.pyfunc import SEQUENCE_COLUMNS, embed_sequences
from ml.tracking import TRAINING, Tracking, register
from settings import Settings

DEPLOYED = "deployed"
EXAMPLE_EVENTS = 20


@dataclass(frozen=True)
class TrainedVersion:
    """What came of a training."""

    version: str
    run_id: str
    url: str
    epochs: int
    validation_recall: float
    seconds: float
    sequences_per_second: float
    waiting_share: float
    parameters: int


def train_version(
    period: TrainingPeriod,
    prepared: Prepared,
    settings: Settings,
    tracking: Tracking,
    models: Path,
    name: str,
    tags: dict[str, str],
) -> TrainedVersion:
    """Train, log, register, and put the version's artefacts under ``models/<version>``.

    Args:
        period: everything that had arrived. prepared: its examples with synthetic contexts, not cross-fitted yet.
        name: of the MLflow run. tags: of the MLflow run, such as where it was started from.
    """
    started = time.perf_counter()
    models.mkdir(parents=True, exist_ok=True)
    tracking.close_abandoned(TRAINING)
    for left_behind in models.glob(".training-*"):  # of a killed training: the home has one writer at a time
        shutil.rmtree(left_behind, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".training-", dir=models))
    try:
        with tracking.run(TRAINING, f"item_model {name}", tags, system_metrics=True) as run:
            mlflow.log_params(settings.flat())
            mlflow.log_params({"data.events": len(period.events), "data.items": len(period.items)})
            mlflow.set_tag("dataset_hash", dataset_hash(period))
            announce("choosing the number of epochs on the validation slice")
            selection = choose_epochs(
                period.until(period.end - period.window),
                settings,
                work / "fit",
                training_logger(tracking, run.info.run_id),
            )
            epochs = selection.best_epoch
            earlier = period.until(period.end - period.window)
            # The comparison models differ in contexts and encoder only.
            known = cross_fitted(prepare_examples(earlier, settings), earlier, settings)
            for model in TRAINED:
                announce(f"{model.value}, for the comparison on the newest window")
                _evaluation_fit(model, earlier, known, settings, epochs, tracking, work)
            announce("the model to deploy, on everything")
            fitted = fit_prepared(
                period,
                cross_fitted(prepared, period, settings),
                settings,
                epochs,
                work / "fit",
                logger=training_logger(tracking, run.info.run_id),
            )
            artifact = ModelArtifact(fitted.network, prepared.dataset.basis, settings, period.event_names, period.end)
            artifact.save(work / DEPLOYED)
            mlflow.log_metrics(
                {
                    "epochs": epochs,
                    "fit_seconds": fitted.seconds,
                    "sequences_per_second": fitted.sequences_per_second,
                    "waiting_share": fitted.waiting_share,
                    "chosen_validation_recall_at_100": selection.best_validation,
                }
            )
            version = _register(artifact, period, work / DEPLOYED)
            shutil.rmtree(work / "fit", ignore_errors=True)
            target = models / version
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
            return TrainedVersion(
                version=version,
                run_id=run.info.run_id,
                url=tracking.url(run),
                epochs=epochs,
                validation_recall=selection.best_validation,
                seconds=time.perf_counter() - started,
                sequences_per_second=fitted.sequences_per_second,
                waiting_share=fitted.waiting_share,
                parameters=sum(parameter.numel() for parameter in fitted.network.parameters()),
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _evaluation_fit(
    model: ModelName,
    earlier: TrainingPeriod,
    known: Prepared,
    settings: Settings,
    epochs: int,
    tracking: Tracking,
    work: Path,
) -> None:
    """Fit one comparison model until T - K, in a nested MLflow run, and keep it for the reports."""
    effective = settings_of(model, settings)
    with tracking.run(TRAINING, model.value, {"model": model.value, "purpose": "comparison"}, nested=True) as run:
        mlflow.log_params({**effective.flat(), "epochs": epochs})
        prepared = with_subjects(known, effective)
        logger = training_logger(tracking, run.info.run_id)
        fitted = fit_prepared(earlier, prepared, effective, epochs, work / "fit", logger=logger)
        mlflow.log_metrics({"fit_seconds": fitted.seconds, "sequences_per_second": fitted.sequences_per_second})
    artifact = ModelArtifact(fitted.network, prepared.dataset.basis, effective, earlier.event_names, earlier.end)
    artifact.save(work / evaluation_part(model))


def evaluation_part(model: ModelName) -> str:
    """The directory of a comparison model within its version."""
    return f"evaluation-{model.value}"


def dataset_hash(period: TrainingPeriod) -> str:
    """A hash of the events that were learnt from: equal data, equal hash."""
    rows = period.events.hash_rows(seed=0).to_numpy()
    return f"{int(np.bitwise_xor.reduce(rows) if len(rows) else 0):016x}-{len(rows)}"


def announce(what: str) -> None:
    """Say which part of a training begins: there are several, and each takes a while."""
    print(f"    training: {what}", file=sys.stderr, flush=True)


def training_logger(tracking: Tracking, run_id: str) -> MLFlowLogger:
    """Where Lightning logs the curves of a run."""
    return MLFlowLogger(experiment_name=TRAINING, tracking_uri=tracking.uri, run_id=run_id)


def _register(artifact: ModelArtifact, period: TrainingPeriod, directory: Path) -> str:
    example = period.events.head(EXAMPLE_EVENTS).to_pandas()
    example["event_time"] = example["event_time"].astype("int64") / 1e6
    example = pd.DataFrame(example[list(SEQUENCE_COLUMNS)])
    return register(directory, example, embed_sequences(artifact, example))

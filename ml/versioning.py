"""One training of a model version: selection, comparison models, the deployed fit, MLflow.

Three cut-offs keep the figures honest. With T the end of the period and K the window:

    epochs are chosen on [T - 2K, T - K) by the contextual model that knows nothing from T - 2K on;
    the comparison models learn until T - K, all for that many epochs, and are reported on [T - K, T), which chose
    nothing;
    the deployed model learns until T, for the epochs that were chosen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import mlflow

from ml.artifact import ModelArtifact
from ml.comparison import TRAINED, ModelName, settings_of
from ml.fitting import choose_epochs, fit_prepared
from ml.learning import TrainingPeriod, cross_fitted, prepare_examples, with_subjects
from ml.parts import DEPLOYED, evaluation_part
from ml.prepared import Prepared
from ml.pyfunc import embed_sequences, input_example, log_head
from ml.tracking import TRAINING, Tracking, register
from ml.workplace import (
    FIT,
    announce,
    dataset_hash,
    fingerprint_of,
    fitted_once,
    keep,
    training_logger,
    workplace,
)
from settings import Settings

HEAD = "head.pt2"  # the head alone, for other serving stacks


@dataclass(frozen=True)
class TrainedVersion:
    """What came of a training."""

    version: str
    run_id: str
    url: str
    epochs: int
    validation_metric: str
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
    with (
        workplace(models, tracking, "item", fingerprint_of(period, settings)) as work,
        tracking.run(TRAINING, f"item_model {name}", tags, system_metrics=True) as run,
    ):
        mlflow.log_params(settings.flat())
        mlflow.log_params({"data.events": len(period.events), "data.items": len(period.items)})
        mlflow.set_tag("dataset_hash", dataset_hash(period))
        logger = training_logger(tracking, run.info.run_id)
        announce("choosing the number of epochs on the validation slice")
        earlier = period.until(period.end - period.window)
        selection = fitted_once(
            work / FIT / "choice", lambda place, resume: choose_epochs(earlier, settings, place, logger, resume)
        )
        _comparison_fits(earlier, settings, selection.best_epoch, tracking, work)
        announce("the model to deploy, on everything")
        crossed = cross_fitted(prepared, period, settings)
        epochs = selection.best_epoch
        fitted = fitted_once(
            work / FIT / DEPLOYED,
            lambda place, resume: fit_prepared(period, crossed, settings, epochs, place, logger=logger, resume=resume),
        )
        mlflow.log_metrics(
            {
                "epochs": selection.best_epoch,
                "fit_seconds": fitted.seconds,
                "sequences_per_second": fitted.sequences_per_second,
                "waiting_share": fitted.waiting_share,
                f"chosen_{selection.metric}": selection.best_validation,
            }
        )
        artifact = ModelArtifact(fitted.network, prepared.dataset.basis, settings, period.event_names, period.end)
        artifact.save(work / DEPLOYED)
        log_head(fitted.network, settings.features, work / HEAD)
        version = _register(artifact, period, work / DEPLOYED)
        keep(work, models / version)
        return TrainedVersion(
            version=version,
            run_id=run.info.run_id,
            url=tracking.url(run),
            epochs=selection.best_epoch,
            validation_metric=selection.metric,
            validation_recall=selection.best_validation,
            seconds=time.perf_counter() - started,
            sequences_per_second=fitted.sequences_per_second,
            waiting_share=fitted.waiting_share,
            parameters=sum(parameter.numel() for parameter in fitted.network.parameters()),
        )


def _comparison_fits(earlier: TrainingPeriod, settings: Settings, epochs: int, tracking: Tracking, work: Path) -> None:
    """The models of the reports, which differ in contexts and encoder only, so they share what is prepared."""
    known = cross_fitted(prepare_examples(earlier, settings), earlier, settings)
    for model in TRAINED:
        announce(f"{model.value}, for the comparison on the newest window")
        _evaluation_fit(model, earlier, known, settings, epochs, tracking, work)


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
        fitted = fitted_once(
            work / FIT / model.value,
            lambda place, resume: fit_prepared(
                earlier, prepared, effective, epochs, place, logger=logger, resume=resume
            ),
        )
        mlflow.log_metrics({"fit_seconds": fitted.seconds, "sequences_per_second": fitted.sequences_per_second})
    artifact = ModelArtifact(fitted.network, prepared.dataset.basis, effective, earlier.event_names, earlier.end)
    artifact.save(work / evaluation_part(model))


def _register(artifact: ModelArtifact, period: TrainingPeriod, directory: Path) -> str:
    example = input_example(period.events)
    return register(directory, example, embed_sequences(artifact, example))

"""One training of an advertiser model version, with the cut-offs of ``ml.versioning``:

epochs are chosen on [T - 2K, T - K) by a model that knows nothing from T - 2K on;
the model of the report, and mean pooling beside it, learn until T - K and are reported on [T - K, T);
the deployed model learns until T, for the epochs that were chosen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
from lightning.pytorch.loggers import Logger

from ml.advertisers.artifact import AdvertiserArtifact
from ml.advertisers.learning import (
    AdvertiserData,
    AdvertiserPeriod,
    NothingToLearn,
    advertiser_data,
    advertiser_examples,
    advertiser_queries,
    advertiser_settings,
    cross_fitted,
)
from ml.advertisers.pyfunc import embed_events
from ml.advertisers.training import AdvertiserFit, fit_advertisers
from ml.content import ContentBasis
from ml.parts import DEPLOYED
from ml.pyfunc import input_example
from ml.tracking import ADVERTISER_MODEL, TRAINING, Tracking, log_pyfunc
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
from settings import Settings, UserEncoder

EVALUATION, EVALUATION_POOLING = "evaluation", "evaluation-mean_pooling"


@dataclass(frozen=True)
class TrainedAdvertisers:
    """What came of a training."""

    version: str
    run_id: str
    url: str
    epochs: int
    validation_metric: str
    validation_recall: float
    seconds: float
    sequences_per_second: float
    examples: int
    advertisers: int


def pooled(settings: Settings) -> Settings:
    """The same settings with the mean pooling encoder: the baseline of the report."""
    return settings.model_copy(
        update={"model": settings.model.model_copy(update={"encoder": UserEncoder.mean_pooling})}
    )


def choose_epochs(
    known: AdvertiserPeriod,
    settings: Settings,
    directory: Path,
    logger: Logger | None = None,
    resume: Path | None = None,
) -> AdvertiserFit:
    """Train on the period less its last window, and stop when recall on that window stops rising.

    Raises:
        NothingToLearn: nobody converts with an advertiser before that window, or in it.
    """
    cutoff = known.period.end - known.period.window
    before = known.until(cutoff)
    data = advertiser_data(before, settings, before.period.event_names)
    everyone = len(data.advertisers)
    queries = advertiser_queries(known, data, cutoff, settings, settings.training.validation_users, everyone)
    if not len(queries):
        raise NothingToLearn("no advertiser to predict in the validation window: nobody converts with one there.")
    examples = advertiser_examples(before, data, settings)
    crossed = cross_fitted(data, before, settings)
    epochs = settings.training.maximum_epochs
    return fit_advertisers(crossed, examples, settings, epochs, directory, queries, logger, resume=resume)


def train_advertisers(
    known: AdvertiserPeriod,
    basis: ContentBasis,
    settings: Settings,
    tracking: Tracking,
    models: Path,
    name: str,
    tags: dict[str, str],
) -> TrainedAdvertisers:
    """Train, log, register, and put the version's artefacts under ``models/<version>``.

    Args:
        known: everything that had arrived. basis: its content basis, which the deployed model keeps.
        name: of the MLflow run. tags: of the MLflow run, such as where it was started from.

    Raises:
        NothingToLearn: the log names no advertiser, or too few conversions with one.
    """
    if not len(known.advertiser_ids):
        raise NothingToLearn("the log names no advertiser: neither events nor items have an advertiser_id.")
    started = time.perf_counter()
    effective = advertiser_settings(settings)
    with (
        workplace(models, tracking, "advertiser", fingerprint_of(known.period, effective)) as work,
        tracking.run(TRAINING, f"advertiser_model {name}", tags, system_metrics=True) as run,
    ):
        logger = training_logger(tracking, run.info.run_id)
        mlflow.log_params(effective.flat())
        mlflow.log_params({"data.events": len(known.period.events), "data.advertisers": len(known.advertiser_ids)})
        mlflow.set_tag("dataset_hash", dataset_hash(known.period))
        announce("advertisers: choosing the number of epochs on the validation slice")
        earlier = known.until(known.period.end - known.period.window)
        selection = fitted_once(
            work / FIT / "choice", lambda place, resume: choose_epochs(earlier, effective, place, logger, resume)
        )
        _comparison_fits(earlier, effective, selection.best_epoch, tracking, work)
        announce("advertisers: the model to deploy, on everything")
        everything = advertiser_data(known, effective, known.period.event_names, basis)
        everything = cross_fitted(everything, known, effective)
        examples = advertiser_examples(known, everything, effective)
        epochs = selection.best_epoch
        fitted = fitted_once(
            work / FIT / DEPLOYED,
            lambda place, resume: fit_advertisers(
                everything, examples, effective, epochs, place, logger=logger, resume=resume
            ),
        )
        mlflow.log_metrics(
            {
                "epochs": selection.best_epoch,
                "examples": len(examples),
                "fit_seconds": fitted.seconds,
                "sequences_per_second": fitted.sequences_per_second,
                f"chosen_{selection.metric}": selection.best_validation,
            }
        )
        artifact = _artifact(fitted, everything, known, effective)
        artifact.save(work / DEPLOYED)
        version = _register(artifact, known, work / DEPLOYED)
        keep(work, models / version)
        return TrainedAdvertisers(
            version=version,
            run_id=run.info.run_id,
            url=tracking.url(run),
            epochs=selection.best_epoch,
            validation_metric=selection.metric,
            validation_recall=selection.best_validation,
            seconds=time.perf_counter() - started,
            sequences_per_second=fitted.sequences_per_second,
            examples=len(examples),
            advertisers=len(everything.advertisers),
        )


def _comparison_fits(
    earlier: AdvertiserPeriod, settings: Settings, epochs: int, tracking: Tracking, work: Path
) -> None:
    """The models of the report, on what came before its window."""
    announce("advertisers: the models of the report, on all but the newest window")
    data = cross_fitted(advertiser_data(earlier, settings, earlier.period.event_names), earlier, settings)
    _evaluation_fit(EVALUATION, data, earlier, settings, epochs, tracking, work)
    _evaluation_fit(EVALUATION_POOLING, data, earlier, pooled(settings), epochs, tracking, work)


def _evaluation_fit(
    part: str,
    data: AdvertiserData,
    earlier: AdvertiserPeriod,
    settings: Settings,
    epochs: int,
    tracking: Tracking,
    work: Path,
) -> None:
    """Fit a model of the report, in a nested MLflow run, and keep it."""
    with tracking.run(TRAINING, f"advertisers {part}", {"purpose": "comparison"}, nested=True) as run:
        mlflow.log_params({**settings.flat(), "epochs": epochs})
        logger = training_logger(tracking, run.info.run_id)
        examples = advertiser_examples(earlier, data, settings)
        fitted = fitted_once(
            work / FIT / part,
            lambda place, resume: fit_advertisers(
                data, examples, settings, epochs, place, logger=logger, resume=resume
            ),
        )
        mlflow.log_metrics({"fit_seconds": fitted.seconds})
    _artifact(fitted, data, earlier, settings).save(work / part)


def _artifact(
    fitted: AdvertiserFit, data: AdvertiserData, known: AdvertiserPeriod, settings: Settings
) -> AdvertiserArtifact:
    period = known.period
    return AdvertiserArtifact(fitted.network, data.dataset.basis, settings, period.event_names, period.end)


def _register(artifact: AdvertiserArtifact, known: AdvertiserPeriod, directory: Path) -> str:
    example = input_example(known.period.events)
    number = log_pyfunc(ADVERTISER_MODEL, directory, example, embed_events(artifact, example))
    return f"advertiser-{number}"

"""One training of an advertiser model version, with the cut-offs of ``ml.versions.train``:

epochs are chosen on [T - 2K, T - K) by a model that knows nothing from T - 2K on;
the model of the report, and mean pooling beside it, learn until T - K and are reported on [T - K, T);
the deployed model learns until T, for the epochs that were chosen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
from lightning.pytorch.loggers import Logger

from ml.evaluation.advertiser_queries import advertiser_queries
from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
    advertiser_data,
    advertiser_examples,
    advertiser_settings,
    cross_fitted,
)
from ml.examples.nothing_to_learn import NothingToLearn
from ml.examples.pairs import Examples
from ml.features.content import ContentBasis
from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.layout import ADVERTISER_EVALUATION, ADVERTISER_EVALUATION_POOLING, DEPLOYED
from ml.training.advertiser_task import AdvertiserTask
from ml.training.fit import Fit, fit
from ml.versions.advertiser_pyfunc import embed_events
from ml.versions.pyfunc import input_example
from ml.versions.side_by_side import FitJob, FitWorkers, RunningFit, fit_workers
from ml.versions.tracking import ADVERTISER_MODEL, TRAINING, Tracking, log_pyfunc
from ml.versions.work_directory import FIT, dataset_hash, fingerprint_of, keep, workplace
from settings import Settings, UserEncoder


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
    *,
    logger: Logger | None = None,
    resume: Path | None = None,
) -> Fit[AdvertiserNetwork]:
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
    task = AdvertiserTask(crossed, examples, settings, queries)
    return fit(task, settings.training.maximum_epochs, directory, logger=logger, resume=resume)


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
        mlflow.log_params(effective.flat())
        mlflow.log_params({"data.events": len(known.period.events), "data.advertisers": len(known.advertiser_ids)})
        mlflow.set_tag("dataset_hash", dataset_hash(known.period))
        everything = advertiser_data(known, effective, known.period.event_names, basis)
        examples = advertiser_examples(known, everything, effective)
        selection, fitted = _fits(known, everything, examples, effective, tracking, run.info.run_id, work)
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


def _fits(
    known: AdvertiserPeriod,
    everything: AdvertiserData,
    examples: Examples,
    settings: Settings,
    tracking: Tracking,
    run_id: str,
    work: Path,
) -> tuple[Fit[AdvertiserNetwork], Fit[AdvertiserNetwork]]:
    """Choose the number of epochs, then fit the models of the report and the model to deploy side by side.

    Returns:
        The fit that chose the number of epochs, and the one to deploy.
    """
    earlier = known.until(known.period.end - known.period.window)
    with fit_workers(settings.training.fits_at_once) as workers:
        choice = partial(choose_epochs, earlier, settings)
        choosing = workers.start(
            FitJob("choice of the advertisers' epochs", work / FIT / "choice", choice, tracking, run_id)
        )
        # Prepared while the choice is made.
        data = cross_fitted(advertiser_data(earlier, settings, earlier.period.event_names), earlier, settings)
        crossed = cross_fitted(everything, known, settings)
        selection = choosing.result()
        epochs = selection.best_epoch
        comparisons = [
            _ComparisonFit(ADVERTISER_EVALUATION, data, earlier, settings, epochs),
            _ComparisonFit(ADVERTISER_EVALUATION_POOLING, data, earlier, pooled(settings), epochs),
        ]
        running = [each.start(workers, tracking, run_id, work) for each in comparisons]
        everyone = partial(fit, AdvertiserTask(crossed, examples, settings), epochs)
        deployed = workers.start(
            FitJob("advertiser model to deploy", work / FIT / DEPLOYED, everyone, tracking, run_id)
        )
        for comparison, running_fit in zip(comparisons, running, strict=True):
            comparison.keep(running_fit, tracking, work)
        return selection, deployed.result()


@dataclass(frozen=True)
class _ComparisonFit:
    """A model of the report: it learns until T - K, in a nested MLflow run."""

    part: str
    data: AdvertiserData
    earlier: AdvertiserPeriod
    settings: Settings
    epochs: int

    def start(
        self, workers: FitWorkers, tracking: Tracking, parent_run_id: str, work: Path
    ) -> RunningFit[Fit[AdvertiserNetwork]]:
        """Open the nested run and hand the fit over."""
        run_id = tracking.open_nested(TRAINING, f"advertisers {self.part}", {"purpose": "comparison"}, parent_run_id)
        tracking.log_params_of(run_id, {**self.settings.flat(), "epochs": self.epochs})
        examples = advertiser_examples(self.earlier, self.data, self.settings)
        comparison = partial(fit, AdvertiserTask(self.data, examples, self.settings), self.epochs)
        return workers.start(FitJob(f"advertisers {self.part}", work / FIT / self.part, comparison, tracking, run_id))

    def keep(self, running: RunningFit[Fit[AdvertiserNetwork]], tracking: Tracking, work: Path) -> None:
        """Wait for the fit, close the nested run and keep the network for the report."""
        fitted = running.result()
        tracking.close_nested(running.job.run_id, {"fit_seconds": fitted.seconds})
        _artifact(fitted, self.data, self.earlier, self.settings).save(work / self.part)


def _artifact(
    fitted: Fit[AdvertiserNetwork], data: AdvertiserData, known: AdvertiserPeriod, settings: Settings
) -> AdvertiserArtifact:
    period = known.period
    return AdvertiserArtifact(fitted.network, data.dataset.basis, settings, period.event_names, period.end)


def _register(artifact: AdvertiserArtifact, known: AdvertiserPeriod, directory: Path) -> str:
    example = input_example(known.period.events)
    number = log_pyfunc(ADVERTISER_MODEL, directory, example, embed_events(artifact, example))
    return f"advertiser-{number}"

"""The course of a training, which every kind of model takes: comparison models, the deployed fit, MLflow.

Two cut-offs keep the figures honest. With T the end of the period and K the window:

    the comparison models learn until T - K, and are reported on [T - K, T), which chooses nothing;
    the deployed model learns until T, because the newest conversions tell most about the near future.

All learn for the same number of epochs. The version's own comparison model is validated on [T - K, T) after each epoch,
and its MLflow run has the curve.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import mlflow

from engine.engine import Engine
from engine.local import LocalEngine
from ml.examples.period import TrainingPeriod
from ml.features.content import ContentBasis
from ml.models.artifact import Artifact
from ml.models.version_directories import DEPLOYED
from ml.training.fit import Fit, FitSummary, Task, fit
from ml.versions.datasets import log_datasets
from ml.versions.fingerprint import dataset_hash, fingerprint_of
from ml.versions.side_by_side import FitFunction, FitJob, FitWorkers, RunningFit, fit_workers
from ml.versions.tracking import TRAINING, Registered, Tracking
from ml.versions.work_directory import FIT, keep, workplace
from settings import Settings

NetworkType = TypeVar("NetworkType", bound=Any)


@dataclass(frozen=True)
class PlannedFit(Generic[NetworkType]):
    """One model of a version: its task, and the parts of its artefact beside the weights.

    Attributes:
        name: of the model: of its nested run in MLflow, and of its progress.
        part: the model's directory within the version.
        task: the task that the model learns.
        period: the period that the task was made of. basis: the content basis of the task's features.
    """

    name: str
    part: str
    task: Task[NetworkType]
    period: TrainingPeriod
    basis: ContentBasis

    def artifact(self, kind: type[Artifact[NetworkType]], network: NetworkType) -> Artifact[NetworkType]:
        """Return the artefact of the trained ``network``."""
        return kind(network, self.basis, self.task.settings, self.period.event_names, self.period.end)


class VersionTask(Protocol[NetworkType]):
    """One kind of model, and the data that a version of this kind is trained on."""

    @property
    def kind(self) -> str:
        """Return the name of the kind, such as ``item``: version 3 is called ``item-3``."""

    @property
    def settings(self) -> Settings:
        """Return the settings that the version is trained under."""

    @property
    def period(self) -> TrainingPeriod:
        """Return everything that had arrived."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the sizes of the training data, by name: for the run's parameters."""

    @property
    def artifact_class(self) -> type[Artifact[NetworkType]]:
        """Return the class of the artefacts."""

    def comparisons(self) -> Sequence[PlannedFit[NetworkType]]:
        """Return the models of the reports, which learn until T - K; one of them may have a validation."""

    def deployed(self) -> PlannedFit[NetworkType]:
        """Return the model to deploy, which learns until T."""

    def register(self, artifact: Artifact[NetworkType], work: Path) -> Registered:
        """Log the trained model to the active MLflow run, from ``work / DEPLOYED``, and register the model."""


@dataclass(frozen=True)
class TrainedVersion:
    """The result of a training."""

    version: str
    run_id: str
    url: str
    epochs: int
    validation: Mapping[str, float]  # of the version's own model among the comparison models; empty without conversions
    seconds: float
    sequences_per_second: float
    waiting_share: float
    parameters: int
    sizes: Mapping[str, int]


def train_version(
    version_task: VersionTask[NetworkType],
    tracking: Tracking,
    models: Path,
    *,
    name: str,
    tags: dict[str, str],
    engine: Engine | None = None,
) -> TrainedVersion:
    """Train a version, log and register it, and put its artefacts under ``models/<version>``.

    Args:
        name: of the MLflow run. tags: of the MLflow run, such as the place that started the run.
        engine: runs the processes that share a fit; None: this machine.
    """
    started = time.perf_counter()
    kind, settings, period = version_task.kind, version_task.settings, version_task.period
    with (
        workplace(models, tracking, kind, fingerprint_of(period, settings)) as work,
        tracking.run(TRAINING, f"{kind}_model {name}", tags, system_metrics=True) as run,
    ):
        mlflow.log_params(settings.flat())
        mlflow.log_params({f"data.{what}": size for what, size in version_task.sizes.items()})
        mlflow.set_tag("dataset_hash", dataset_hash(period))
        log_datasets(period)
        course = _Course(version_task, tracking, run.info.run_id, work, engine or LocalEngine())
        validation, fitted, artifact = course.run()
        artifact.save(work / DEPLOYED)
        registered = version_task.register(artifact, work)
        mlflow.log_metrics(
            {
                "epochs": fitted.epochs,
                "fit_seconds": fitted.seconds,
                "sequences_per_second": fitted.sequences_per_second,
                "waiting_share": fitted.waiting_share,
                **validation,
            },
            model_id=registered.model_id,
        )
        version = f"{kind}-{registered.number}"
        keep(work, models / version)
        return TrainedVersion(
            version=version,
            run_id=run.info.run_id,
            url=tracking.url(run),
            epochs=fitted.epochs,
            validation=validation,
            seconds=time.perf_counter() - started,
            sequences_per_second=fitted.sequences_per_second,
            waiting_share=fitted.waiting_share,
            parameters=sum(parameter.numel() for parameter in fitted.network.parameters()),
            sizes=version_task.sizes,
        )


@dataclass(frozen=True)
class _Course(Generic[NetworkType]):
    """The fits of one training, with their MLflow runs and their directories."""

    version_task: VersionTask[NetworkType]
    tracking: Tracking
    run_id: str
    work: Path
    engine: Engine

    def run(self) -> tuple[dict[str, float], Fit[NetworkType], Artifact[NetworkType]]:
        """Fit the comparison models and the model to deploy side by side.

        Returns:
            The main figures of validations by name, the fit to deploy, and its artefact.
        """
        training = self.version_task.settings.training
        epochs, several = training.epochs, training.processes > 1
        with fit_workers(training.fits_at_once or int(several)) as workers:
            comparisons = self.version_task.comparisons()
            running = [self._start_comparison(workers, planned, epochs) for planned in comparisons]
            to_deploy = self.version_task.deployed()  # prepared while the others learn
            function = partial(fit, to_deploy.task, epochs, engine=self.engine)
            deploying = self._start(workers, "to deploy", DEPLOYED, function=function)
            compared = [
                self._keep_comparison(planned, comparison)
                for planned, comparison in zip(comparisons, running, strict=True)
            ]
            deployed = deploying.result()
            validation = {fitted.metric: fitted.validation for fitted in compared if fitted.metric}
            return validation, deployed, to_deploy.artifact(self.version_task.artifact_class, deployed.network)

    def _start(
        self,
        workers: FitWorkers,
        name: str,
        directory: str,
        *,
        function: FitFunction[Fit[NetworkType]],
        run_id: str | None = None,
    ) -> RunningFit[Fit[NetworkType]]:
        name = f"{self.version_task.kind} model, {name}"
        return workers.start(FitJob(name, self.work / FIT / directory, function, self.tracking, run_id or self.run_id))

    def _start_comparison(
        self, workers: FitWorkers, planned: PlannedFit[NetworkType], epochs: int
    ) -> RunningFit[Fit[NetworkType]]:
        """Open a nested run and hand the fit to a worker."""
        tags = {"model": planned.name, "purpose": "comparison"}
        run_id = self.tracking.open_nested(TRAINING, planned.name, tags, self.run_id)
        self.tracking.log_params_of(run_id, {**planned.task.settings.flat(), "epochs": epochs})
        function = partial(fit, planned.task, epochs, engine=self.engine)
        return self._start(workers, planned.name, planned.part, function=function, run_id=run_id)

    def _keep_comparison(self, planned: PlannedFit[NetworkType], running: RunningFit[Fit[NetworkType]]) -> FitSummary:
        """Wait for the fit, close its nested run and keep the network for the reports."""
        fitted = running.result()
        figures = {"fit_seconds": fitted.seconds, "sequences_per_second": fitted.sequences_per_second}
        self.tracking.close_nested(running.job.run_id, figures)
        planned.artifact(self.version_task.artifact_class, fitted.network).save(self.work / planned.part)
        return fitted

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
from functools import partial
from pathlib import Path

import mlflow

from ml.evaluation.model_lists import TRAINED, ModelName, settings_of
from ml.examples.period import Prepared, TrainingPeriod, cross_fitted, prepare_examples, with_subjects
from ml.models.artifact import ModelArtifact
from ml.models.item_model import TwoTower
from ml.models.layout import DEPLOYED, evaluation_part
from ml.training.fit import Fit, fit
from ml.training.item_task import ItemTask, choose_epochs
from ml.versions.pyfunc import embed_sequences, input_example, log_head
from ml.versions.side_by_side import FitJob, FitWorkers, RunningFit, fit_workers
from ml.versions.tracking import TRAINING, Tracking, register
from ml.versions.work_directory import FIT, dataset_hash, fingerprint_of, keep, workplace
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
        selection, fitted = _fits(period, prepared, settings, tracking, run.info.run_id, work)
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


def _fits(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, tracking: Tracking, run_id: str, work: Path
) -> tuple[Fit[TwoTower], Fit[TwoTower]]:
    """Choose the number of epochs, then fit the comparison models and the model to deploy side by side.

    Returns:
        The fit that chose the number of epochs, and the one to deploy.
    """
    earlier = period.until(period.end - period.window)
    with fit_workers(settings.training.fits_at_once) as workers:
        choosing = workers.start(
            FitJob(
                "choice of epochs", work / FIT / "choice", partial(choose_epochs, earlier, settings), tracking, run_id
            )
        )
        # Prepared while the choice is made. The comparison models differ in contexts and encoder only.
        known = cross_fitted(prepare_examples(earlier, settings), earlier, settings)
        crossed = cross_fitted(prepared, period, settings)
        selection = choosing.result()
        epochs = selection.best_epoch
        comparisons = [_ComparisonFit(model, earlier, known, settings, epochs) for model in TRAINED]
        running = [each.start(workers, tracking, run_id, work) for each in comparisons]
        fit_everything = partial(fit, ItemTask.of(period, crossed, settings), epochs)
        deployed = workers.start(FitJob("model to deploy", work / FIT / DEPLOYED, fit_everything, tracking, run_id))
        for comparison, running_fit in zip(comparisons, running, strict=True):
            comparison.keep(running_fit, tracking, work)
        return selection, deployed.result()


@dataclass(frozen=True)
class _ComparisonFit:
    """A model of the reports: it learns until T - K, in a nested MLflow run."""

    model: ModelName
    period: TrainingPeriod
    known: Prepared
    settings: Settings
    epochs: int

    @property
    def effective(self) -> Settings:
        """The settings of this model."""
        return settings_of(self.model, self.settings)

    def start(
        self, workers: FitWorkers, tracking: Tracking, parent_run_id: str, work: Path
    ) -> RunningFit[Fit[TwoTower]]:
        """Open the nested run and hand the fit over."""
        tags = {"model": self.model.value, "purpose": "comparison"}
        run_id = tracking.open_nested(TRAINING, self.model.value, tags, parent_run_id)
        tracking.log_params_of(run_id, {**self.effective.flat(), "epochs": self.epochs})
        prepared = with_subjects(self.known, self.effective)
        task = ItemTask.of(self.period, prepared, self.effective)
        name = f"{self.model.value} of the comparison"
        return workers.start(
            FitJob(name, work / FIT / self.model.value, partial(fit, task, self.epochs), tracking, run_id)
        )

    def keep(self, running: RunningFit[Fit[TwoTower]], tracking: Tracking, work: Path) -> None:
        """Wait for the fit, close the nested run and keep the network for the reports."""
        fitted = running.result()
        figures = {"fit_seconds": fitted.seconds, "sequences_per_second": fitted.sequences_per_second}
        tracking.close_nested(running.job.run_id, figures)
        basis, period = self.known.dataset.basis, self.period
        artifact = ModelArtifact(fitted.network, basis, self.effective, period.event_names, period.end)
        artifact.save(work / evaluation_part(self.model))


def _register(artifact: ModelArtifact, period: TrainingPeriod, directory: Path) -> str:
    example = input_example(period.events)
    return register(directory, example, embed_sequences(artifact, example))

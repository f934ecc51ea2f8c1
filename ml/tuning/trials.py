"""A search over settings on a validation slice inside the training period.

With T the end of the period and K the window, every trial learns until T - K and is measured on [T - K, T); no event at
or after T is read. Optuna draws the trials (with its default, the
tree-structured Parzen estimator, Bergstra et al. 2011) and stops hopeless trials early. Each trial is an MLflow run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
from lightning.pytorch.loggers import MLFlowLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from ml.evaluation.contextual_requests import context_evaluation
from ml.evaluation.item_report import advertiser_codes
from ml.evaluation.metrics import Metrics, evaluate, mlflow_name, usable_ks
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import EvaluationSet, validation_slice
from ml.examples.pairs import positive_names
from ml.examples.period import Prepared, TrainingPeriod
from ml.training.fit import VALIDATION_KS, fit
from ml.training.item_task import ItemTask
from ml.tuning.space import Dimension, space_around, suggested, without
from ml.versions.fingerprint import dataset_hash
from ml.versions.tracking import TUNING, Tracking
from settings import Settings

DEFAULT, FIGURES = "default", "figures"  # attributes of an Optuna trial
ENOUGH_FOR_IMPORTANCE = 6
STAGES = 4  # trials are compared at quarters of their epochs, because trials of few and of many epochs meet


class Objective(StrEnum):
    """The figure on the validation slice that a search maximises."""

    recall_at_100 = "recall@100"
    recall_at_10 = "recall@10"
    context_recall_at_100 = "context_recall@100"  # a basket proxy: the first item of a day is the context
    context_recall_at_10 = "context_recall@10"

    @property
    def in_context(self) -> bool:
        return self.value.startswith("context")

    @property
    def k(self) -> int:
        """Return the list length."""
        return int(self.value.rpartition("@")[2])

    def of(self, figures: Figures) -> float:
        """Return the trial's figure that the search maximises."""
        return float(getattr(figures, mlflow_name(self.value)))


@dataclass(frozen=True)
class Figures:
    """Figures of a trial on the validation slice.

    A figure is NaN where the slice has no baskets or no advertisers, and at a K that the catalogue does not have. The
    fields have the figures' names in MLflow.
    """

    recall_at_10: float
    recall_at_100: float
    context_recall_at_10: float
    context_recall_at_100: float
    diversity90: float
    advertiser_diversity90: float
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Tried:
    """A finished trial."""

    number: int
    values: dict[str, float]  # by setting
    figures: Figures
    is_default: bool


@dataclass(frozen=True)
class Tuning:
    """Data and settings that all trials share."""

    earlier: TrainingPeriod  # what they learn from
    prepared: Prepared
    asked: EvaluationSet  # the validation slice
    in_context: EvaluationSet | None  # its baskets; None where there are none
    advertisers: NDArray[np.int64]  # [items] code, -1 = unknown
    base: Settings
    objective: Objective
    space: tuple[Dimension, ...]
    data: str  # hash of the events

    @classmethod
    def of(cls, period: TrainingPeriod, base: Settings, objective: Objective, fixed: set[str]) -> Tuning:
        """Prepare the validation slice. ``fixed``: settings that are not searched.

        Raises:
            ValueError: nothing to search, no conversion in the slice, or no basket for an objective in context.
        """
        never = {f"examples.label_weights.{name}" for name in period.event_names if name not in period.rule.event_names}
        space = without(space_around(base, objective.in_context), fixed | never)
        if not space:
            raise ValueError("every setting that could be searched is fixed")
        earlier, prepared, asked = validation_slice(period, base)
        if not len(asked.queries):
            raise ValueError(
                f"no known user converts in the last {period.rule.window_days:g} days of the training period: there is "
                "nothing to measure a trial on"
            )
        size = len(asked.queries.candidates)
        if size <= objective.k:
            raise ValueError(
                f"the objective {objective} needs a catalogue of more than {objective.k} items, this one has {size}: "
                + (
                    "choose a smaller K"
                    if size > min(VALIDATION_KS)
                    else "a search has nothing to tell trials apart by"
                )
            )
        maximum = base.training.validation_users
        beside = context_evaluation(
            asked, period, period.requests, features=base.features, maximum=maximum, seed=base.training.seed
        )
        in_context = beside.asked if beside and (beside.asked.queries.positives.items >= 0).any() else None
        if objective.in_context and in_context is None:
            raise ValueError(
                f"the objective {objective} needs logged requests beside an item, or days on which a user converts "
                f"with several items; the last {period.rule.window_days:g} days have none"
            )
        codes = advertiser_codes(period.items)
        return cls(earlier, prepared, asked, in_context, codes, base, objective, space, dataset_hash(period))

    @property
    def name(self) -> str:
        """Return a name that is equal for equal data, settings, space and objective.

        A search with the same name is continued; another name starts a new search.
        """
        objective = mlflow_name(self.objective)
        described = json.dumps([self.data, self.base.flat(), repr(self.space), objective], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:10]

    def defaults(self) -> dict[str, Any]:
        """Return the value of each dimension in ``base``."""
        return {dimension.name: self.base.value(dimension.name) for dimension in self.space}

    def task(self, settings: Settings) -> ItemTask:
        """Return the task of a trial under ``settings``, with its validation."""
        rule = replace(self.earlier.rule, weights=settings.examples.label_weights)
        _, weights = positive_names(rule, self.earlier.event_names)
        examples = self.prepared.examples
        weighed = replace(self.prepared, examples=replace(examples, weight=weights[examples.name]))
        return ItemTask.of(self.earlier, weighed, settings, self.asked)

    def measure(self, settings: Settings, directory: Path, logger: MLFlowLogger) -> Figures:
        """Train under ``settings``, and measure the network."""
        fitted = fit(self.task(settings), settings.training.epochs, directory, logger=logger)

        def measured(asked: EvaluationSet) -> Metrics:
            lists = trained_lists(fitted.network, asked, settings, 100)
            queries, size = asked.queries, len(asked.queries.candidates)
            advertisers = self.advertisers[queries.candidates]
            return evaluate(lists, queries.positives, size, advertisers=advertisers, ks=usable_ks(VALIDATION_KS, size))

        home = measured(self.asked)
        context = measured(self.in_context).recall if self.in_context else {}
        none, diversity = float("nan"), home.advertiser_diversity90
        return Figures(
            recall_at_10=home.recall.get(10, none),
            recall_at_100=home.recall.get(100, none),
            context_recall_at_10=context.get(10, none),
            context_recall_at_100=context.get(100, none),
            diversity90=home.diversity90,
            advertiser_diversity90=none if diversity is None else diversity,
            epochs=fitted.epochs,
            seconds=fitted.seconds,
        )


class TrialLogger(MLFlowLogger):
    """Logger that sends the training's figures to MLflow and the validation's figure to the trial, which may be pruned.

    A trial is judged at each quarter of its epochs, against the other trials at the same quarter of theirs.
    """

    def __init__(self, trial: optuna.Trial, epochs: int, metric: str, *, tracking_uri: str, run_id: str) -> None:
        super().__init__(experiment_name=TUNING, tracking_uri=tracking_uri, run_id=run_id)
        self.trial, self.epochs, self.metric, self.stage, self.validated = trial, epochs, metric, 0, 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        if self.metric not in metrics:
            return
        self.validated += 1
        stage = STAGES * self.validated // self.epochs
        if stage > self.stage:
            self.stage = stage
            self.trial.report(metrics[self.metric], stage)
            if self.trial.should_prune():
                raise optuna.TrialPruned(f"below the median after {self.validated} of {self.epochs} epochs")


def open_study(tuning: Tuning, storage: Path) -> optuna.Study:
    """Open the state of the search, kept in a SQLite file.

    Trials that a killed process left running are marked as failed. Only one process at a time may call this function.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=tuning.name,
        storage=f"sqlite:///{storage}",
        load_if_exists=True,
        direction="maximize",
        pruner=pruner_of(tuning.objective),
    )
    # A search that goes on must not draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=tuning.base.training.seed + len(study.trials))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    unfinished_or_done = study.get_trials(states=(TrialState.WAITING, TrialState.COMPLETE))
    if not any(trial.user_attrs.get(DEFAULT) for trial in unfinished_or_done):
        study.enqueue_trial(tuning.defaults(), user_attrs={DEFAULT: True})
    return study


def pruner_of(objective: Objective) -> optuna.pruners.BasePruner:
    """Return the pruner: from half of a trial's epochs on, it stops a trial below the median of the others.

    With an objective in context no trial is stopped.
    """
    if objective.in_context:  # not what is validated after an epoch, so that cannot tell whom to stop
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=STAGES // 2)


def run_trials(
    tuning: Tuning,
    study: optuna.Study,
    trials: int,
    *,
    tracking: Tracking,
    work: Path,
    told: Callable[[FrozenTrial], None],
) -> None:
    """Run trials until ``trials`` are complete or pruned.

    ``told`` is called with each trial, and ``work`` holds the trial's checkpoints.
    """
    missing = trials - len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
    if missing <= 0:
        return

    def objective(trial: optuna.Trial) -> float:
        settings = suggested(tuning.space, tuning.base, trial)
        tags = {"study": tuning.name, "default": str(bool(trial.user_attrs.get(DEFAULT)))}
        with tracking.run(TUNING, f"trial {trial.number}", tags, nested=True) as run:
            mlflow.log_params({"data.hash": tuning.data, **settings.flat()})
            epochs, metric = settings.training.epochs, tuning.task(settings).monitor or ""
            logger = TrialLogger(trial, epochs, metric, tracking_uri=tracking.uri, run_id=run.info.run_id)
            try:
                with tempfile.TemporaryDirectory(prefix=".tune-", dir=work) as directory:
                    figures = tuning.measure(settings, Path(directory), logger)
            except optuna.TrialPruned as pruned:
                mlflow.set_tag("pruned", str(pruned))
            else:
                mlflow.log_metrics({name: value for name, value in asdict(figures).items() if value == value})
                trial.set_user_attr(FIGURES, asdict(figures))
                return tuning.objective.of(figures)
        raise optuna.TrialPruned

    study.optimize(objective, n_trials=missing, callbacks=[lambda _, trial: told(trial)])


def tried(study: optuna.Study) -> list[Tried]:
    """Return the finished trials, best first."""
    done = study.get_trials(states=(TrialState.COMPLETE,))
    done.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    return [
        Tried(trial.number, trial.params, Figures(**trial.user_attrs[FIGURES]), bool(trial.user_attrs.get(DEFAULT)))
        for trial in done
    ]


def study_figures(study: optuna.Study) -> dict[str, Figure]:
    """Draw Optuna's own plots: the objective trial by trial, and each setting's importance (with enough trials)."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    drawn: dict[str, Callable[[optuna.Study], Axes]] = {"history": plots.plot_optimization_history}
    if len(study.get_trials(states=(TrialState.COMPLETE,))) >= ENOUGH_FOR_IMPORTANCE:
        drawn["importance"] = plots.plot_param_importances
    figures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for name, draw in drawn.items():
            figure = draw(study).get_figure()
            assert isinstance(figure, Figure)
            figure.tight_layout()
            pyplot.close(figure)  # logged, not shown
            figures[name] = figure
    return figures

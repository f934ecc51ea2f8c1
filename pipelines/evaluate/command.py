"""`adseq evaluate`: learn from a fixed split's training events, answer its queries, export the lists, say what they are
worth.

Models that share a network share its training. The figures are adseq's; an outside scorer on the exported lists must
agree with them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ml.evaluation.metrics import mlflow_metrics
from ml.evaluation.model_lists import baseline_lists, network_lists
from ml.evaluation.model_names import EVALUABLE, ModelName
from ml.evaluation.queries import EvaluationSet
from ml.evaluation.untrained_parts import choose_weights
from ml.examples.period import Prepared, TrainingPeriod, cross_fitted, prepare_examples, with_contexts
from ml.models.item_model import TwoTower
from ml.retrieval.lists import RankedLists
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from pipelines.cli.errors import RunRefused
from pipelines.evaluate.answer_tables import Answer, Training, show
from pipelines.evaluate.scoring import SCORED_DEPTH, Catalogue, Scoring
from pipelines.evaluate.split import Split, export_lists, split_asked, training_period
from pipelines.evaluate.work import work_directory
from settings import Settings
from warehouse.home import Home
from warehouse.landing import Landing


@dataclass(frozen=True)
class Evaluation:
    """The arguments of the command line."""

    split: Path
    landing: Landing
    home: Home
    models: Sequence[str]
    seeds: Sequence[int]
    minimum_train_events: int
    export: Path
    settings: Settings

    def export_path(self, model: str, training: Training | None) -> Path:
        """Return ``export``, with the model and the seed in its name where there are several."""
        parts = [self.export.stem]
        if len(set(self.models)) > 1:
            parts.append(model)
        if len(self.seeds) > 1 and training:
            parts.append(f"seed{training.seed}")
        return self.export.with_name("-".join(parts) + self.export.suffix)


def evaluate(evaluation: Evaluation) -> None:
    """Answer the split's queries with every model and seed; export, log to MLflow and print each.

    Raises:
        RunRefused: a model is unknown or needs context items that the split lacks, the directory is not a split, or no
            target is to be scored.
    """
    models = _known_models(evaluation.models)
    split, console = Split.read(evaluation.split), Console()
    _check_context(split, models)
    period = training_period(split, evaluation.landing, evaluation.settings)
    answers, scoring = [], None
    for seed in evaluation.seeds:
        settings = evaluation.settings.with_value("training.seed", seed)
        prepared = cross_fitted(prepare_examples(period, settings), period, settings)
        asked = split_asked(split, period, prepared.dataset, settings)
        scoring = scoring or Scoring.of(split, asked, period, evaluation.minimum_train_events)
        # What is counted is the same for every seed.
        wanted = [model for model in models if model.is_trained or seed == evaluation.seeds[0]]
        for answer in _answers(
            wanted,
            period,
            prepared,
            asked=asked,
            scoring=scoring,
            settings=settings,
            home=evaluation.home,
            console=console,
        ):
            answers.append(answer)
            path = evaluation.export_path(answer.model.value, answer.training)
            rows = export_lists(split, asked, answer.lists, path)
            _log(evaluation, split, period, answer=answer, export=path)
            written = f"{answer.name}: {rows:,} rows written to {path}"
            console.print(written, highlight=False, markup=False, soft_wrap=True)
    assert scoring is not None
    answers.sort(key=lambda answer: (models.index(answer.model), answer.seed))
    show(console, split.name, scoring, answers=answers, samples=evaluation.settings.evaluation.bootstrap_samples)


def _answers(
    models: Sequence[ModelName],
    period: TrainingPeriod,
    prepared: Prepared,
    *,
    asked: EvaluationSet,
    scoring: Scoring,
    settings: Settings,
    home: Home,
    console: Console,
) -> Iterator[Answer]:
    """Yield the answers under one seed; each network is trained once, and the weights of the parts are chosen once."""
    parts = choose_weights(period, None, settings) if ModelName.parts in models else None

    def lists_of(model: ModelName, network: TwoTower | None, depth: int) -> RankedLists:
        if model is ModelName.parts and parts:
            return parts.lists(asked, settings, depth)
        if network is None:
            return baseline_lists(model, asked, depth)
        return network_lists(model, network, asked, settings=settings, depth=depth)

    def answer(model: ModelName, training: Training | None, network: TwoTower | None) -> Answer:
        depth = max(settings.evaluation.depth, SCORED_DEPTH)
        lists = lists_of(model, network, depth)
        # A model that likes new items fills its lists with them, and would have too few that can be scored as warm.
        while scoring.is_too_short(lists, depth):
            depth = min(2 * depth, len(asked.queries.candidates))
            lists = lists_of(model, network, depth)
        measured = {catalogue: scoring.measure(lists, catalogue) for catalogue in Catalogue}
        return Answer(model, training, lists, measured, model.settings(settings))

    for model in models:
        if not model.is_trained:
            yield answer(model, None, None)
    for base in ModelName:
        ways = [model for model in models if model.is_trained and model.base is base]
        if ways:
            console.print(f"Training {base.value}, seed {settings.training.seed} ...", highlight=False)
            network, training = _train(period, prepared, base.settings(settings), home)
            yield from (answer(way, training, network) for way in ways)


def _train(period: TrainingPeriod, prepared: Prepared, settings: Settings, home: Home) -> tuple[TwoTower, Training]:
    """Return a network trained on the whole period."""
    started = time.perf_counter()
    with work_directory(home) as work:
        task = ItemTask.of(period, with_contexts(prepared, period, settings), settings)
        fitted = fit(task, settings.training.epochs, work)
    return fitted.network, Training(settings.training.seed, fitted.epochs, time.perf_counter() - started)


def _log(evaluation: Evaluation, split: Split, period: TrainingPeriod, *, answer: Answer, export: Path) -> None:
    """Log one answer as an MLflow run: settings, figures of both catalogues, the data and the place of the lists."""
    import mlflow

    from ml.versions.fingerprint import dataset_hash
    from ml.versions.tracking import EVALUATIONS, Tracking

    tracking = Tracking(evaluation.home.tracking_uri, evaluation.home.artifacts)
    tags = {"model": answer.model.value, "dataset_hash": dataset_hash(period), "lists": str(export.absolute())}
    figures = answer.metrics[Catalogue.warm].figures()
    figures |= {f"full_{name}": value for name, value in answer.metrics[Catalogue.full].figures().items()}
    if answer.training:
        figures |= {"epochs": answer.training.epochs, "training_seconds": answer.training.seconds}
    with tracking.run(EVALUATIONS, f"{split.name}: {answer.name}", tags):
        mlflow.log_params(
            {
                "split": split.name,
                "model": answer.model.value,
                "min_train_events": evaluation.minimum_train_events,
                **answer.settings.flat(),
            }
        )
        mlflow.log_metrics(mlflow_metrics(figures))


def _known_models(names: Sequence[str]) -> list[ModelName]:
    """Return the models in the order of ``names``, each once."""
    known = [model.value for model in EVALUABLE]
    for name in names:
        if name not in known:
            raise RunRefused(f"--model {name!r} is unknown; there are {', '.join(known)}.")
    return [ModelName[name] for name in dict.fromkeys(names)]


def _check_context(split: Split, models: Sequence[ModelName]) -> None:
    """Refuse the other ways of asking where such a way would give the model's own answer."""
    if split.queries["context_item"].is_not_null().any():
        return
    for model in models:
        if model.needs_context:
            raise RunRefused(
                f"--model {model.value} differs from {model.base.value} by the context item, and the queries of "
                f"{split.name} have none. Use a split of the context protocol, or --model {model.base.value}."
            )

"""`adseq evaluate --level advertiser`: the advertisers that the users of a fixed split convert with next.

The query of a user with a history asks for the advertisers of the query's target items. Every known advertiser is a
candidate, or those of an index of stated size (``advertisers.report_index_size``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mlflow
import numpy as np
import polars as pl
from rich.console import Console

from ml.evaluation.advertiser_queries import AdvertiserQueries, had_before, query_lists, sampled_index
from ml.evaluation.advertiser_report import (
    AdvertiserComparison,
    AdvertiserFigures,
    baseline_lists,
    bounded_ks,
    measure_advertisers,
)
from ml.evaluation.metrics import DIVERSITY_DEPTH, mlflow_metrics, recall_by_positive_segment, usable_ks
from ml.evaluation.model_names import AdvertiserModelName as Name
from ml.evaluation.queries import positions
from ml.evaluation.report_rows import less
from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
    advertiser_data,
    advertiser_examples,
    advertiser_settings,
    cross_fitted,
)
from ml.examples.period import TrainingPeriod
from ml.models.advertiser_model import AdvertiserNetwork
from ml.retrieval.lists import Ragged, RankedLists
from ml.training.advertiser_task import AdvertiserTask
from ml.training.fit import fit
from ml.versions.advertiser_version import pooled
from ml.versions.fingerprint import dataset_hash
from ml.versions.tracking import EVALUATIONS, Tracking
from pipelines.cli.errors import RunRefused
from pipelines.evaluate.answer_tables import WIDTH, Training, figure_table
from pipelines.evaluate.command import Evaluation
from pipelines.evaluate.split import Split, split_asked, training_period, write_whole
from pipelines.evaluate.work import work_directory
from settings import Settings
from warehouse.home import Home

TRAINED = (Name.mean_pooling, Name.advertiser_model)
NOVELTIES = ("known", "new")


def evaluate_advertisers(evaluation: Evaluation) -> None:
    """Answer the split's queries with advertisers, by every model and seed; export, log to MLflow and print each.

    Raises:
        RunRefused: a model is unknown, the directory is not a split, its items have no advertiser, no user with a
            history has a target with one, or targets are to be chosen by the events of items.
        NothingToLearn: nobody converts with an advertiser before the split's cut-off.
    """
    if evaluation.minimum_train_events:
        raise RunRefused("--min-train-events counts the events of items: leave it out with --level advertiser.")
    models, split = _known_models(evaluation.models), Split.read(evaluation.split)
    console = Console()
    console = Console(file=console.file, width=max(console.width, WIDTH))
    period = training_period(split, evaluation.landing, evaluation.settings)
    known = AdvertiserPeriod.of(period)
    if not len(known.advertiser_ids):
        raise RunRefused(
            f"{evaluation.landing.root}: no item of {split.name} has an advertiser_id: nothing to ask for."
        )
    for seed in evaluation.seeds:
        settings = advertiser_settings(evaluation.settings.with_value("training.seed", seed))
        data = advertiser_data(known, settings, period.event_names)
        queries = asked_advertisers(split, period, data, settings)
        depth = max(DIVERSITY_DEPTH, *settings.evaluation.ks)
        lists: dict[str, RankedLists] = baseline_lists(queries, split.window_days, depth)
        trainings: dict[str, Training] = {}
        for model in models:
            if model in TRAINED:
                console.print(f"Training {model}, seed {seed} ...", highlight=False)
                chosen = pooled(settings) if model is Name.mean_pooling else settings
                network, trainings[model] = _train(known, data, chosen, evaluation.home)
                lists[model] = query_lists(network, queries, chosen, depth)
        answers = Answers(split, queries, {model: lists[model] for model in models}, trainings, settings)
        for model in models:
            path = evaluation.export_path(model, trainings.get(model))
            write_whole(answers.frame(model), path)
            written = f"{model}, seed {seed}: the lists of {len(queries):,} users written to {path}"
            console.print(written, highlight=False, markup=False, soft_wrap=True)
        figures = answers.measure(period)
        _show(console, answers, figures)
        _log(evaluation, answers, figures, hashed=dataset_hash(period))


@dataclass(frozen=True)
class Answers:
    """The lists of every model under one seed, in rows of the queries' index."""

    split: Split
    queries: AdvertiserQueries
    lists: Mapping[str, RankedLists]
    trainings: Mapping[str, Training]
    settings: Settings

    def frame(self, model: str) -> pl.DataFrame:
        """Return query_id, rank (1 = best), advertiser_id."""
        query, place = np.nonzero(self.lists[model].items >= 0)
        row = self.queries.index[self.lists[model].items[query, place]]
        # The users of ``split_asked`` are the rows of the split's queries.
        asked = self.queries.dataset.log.user_ids.gather(self.queries.user[query]).cast(pl.Int64)
        return pl.DataFrame(
            {
                "query_id": self.split.queries["query_id"].gather(asked),
                "rank": place + 1,
                "advertiser_id": self.queries.advertisers.advertiser_ids.gather(row),
            }
        )

    def measure(self, period: TrainingPeriod) -> AdvertiserFigures:
        """Return the figures of the advertiser report."""
        known = len(self.queries.advertisers.known(self.queries.as_of))
        evaluation = self.settings.evaluation
        return measure_advertisers(
            AdvertiserComparison(self.queries, self.lists, known, 0),
            period.event_names,
            evaluation.ks,
            samples=evaluation.bootstrap_samples,
            seed=self.settings.training.seed,
        )

    @property
    def compared_ks(self) -> list[int]:
        """Return the list lengths at which the advertisers that a user knew are measured apart."""
        return bounded_ks(self.settings.evaluation.ks, len(self.queries.index))

    def by_novelty(self, model: str, k: int) -> dict[str, float]:
        """Return Recall@K of the advertisers that a user knew and of those new to the user."""
        labels = np.where(self.queries.repeated, *NOVELTIES)
        frame = recall_by_positive_segment(self.lists[model], self.queries.positives, labels, k)
        return dict(frame.select("segment", "recall").iter_rows())


def asked_advertisers(
    split: Split, period: TrainingPeriod, data: AdvertiserData, settings: Settings
) -> AdvertiserQueries:
    """Return the queries of the split's users with a history, and the advertisers of their target items.

    A target without an advertiser is left out; an advertiser that nobody knew at the cut-off is a miss.

    Raises:
        RunRefused: nothing is left.
    """
    asked = split_asked(split, period, data.dataset, settings)
    queries, log = asked.queries, asked.dataset.log
    of_item = data.advertisers.of_item
    by_advertiser = replace(log, item=np.where(log.item >= 0, of_item[np.maximum(log.item, 0)], -1))
    query, target = queries.positives.query_rows, queries.candidates[queries.positives.items]
    usable = (of_item[target] >= 0) & (queries.user[query] >= 0)
    query, advertiser = np.unique(np.stack([query[usable], of_item[target[usable]]]), axis=1)
    if not len(query):
        raise RunRefused(f"{split.name}: no user with a history has a target item with an advertiser_id.")
    rows = np.unique(query)
    index = sampled_index(
        data.advertisers.known(queries.as_of),
        np.unique(advertiser),
        settings.advertisers.report_index_size,
        settings.training.seed,
    )
    known_until = np.zeros(log.users, np.int64)
    known_until[queries.user[rows]] = queries.history_end[rows]
    return AdvertiserQueries(
        dataset=asked.dataset,
        advertisers=data.advertisers,
        log=by_advertiser,
        user=queries.user[rows],
        history_end=queries.history_end[rows],
        positives=Ragged.from_pairs(
            np.searchsorted(rows, query), positions(index, len(data.advertisers))[advertiser], len(rows)
        ),
        positive_name=np.ones(len(query), np.int64),  # a split has events of one name
        repeated=had_before(by_advertiser, known_until, queries.user[query], advertiser),
        index=index,
        as_of=queries.as_of,
    )


def _train(
    known: AdvertiserPeriod, data: AdvertiserData, settings: Settings, home: Home
) -> tuple[AdvertiserNetwork, Training]:
    """Return a network trained until the cut-off."""
    started = time.perf_counter()
    with work_directory(home) as work:
        task = AdvertiserTask(cross_fitted(data, known, settings), advertiser_examples(known, data, settings), settings)
        fitted = fit(task, settings.training.epochs, work)
    return fitted.network, Training(settings.training.seed, fitted.epochs, time.perf_counter() - started)


def _show(console: Console, answers: Answers, figures: AdvertiserFigures) -> None:
    queries, ks = answers.queries, usable_ks(answers.settings.evaluation.ks, len(answers.queries.index))
    compared, seed = answers.compared_ks, answers.settings.training.seed
    title = (
        f"{answers.split.name}, advertisers, seed {seed}: {len(queries.positives.items):,} positives of "
        f"{len(queries):,} users with a history; an index of {len(queries.index):,} of "
        f"{len(queries.advertisers.known(queries.as_of)):,} known advertisers"
    )
    parts = [f"{novelty}, recall@{k}" for k in compared for novelty in NOVELTIES]
    table = figure_table(title, ["Model", *(f"recall@{k}" for k in ks), *parts, "diversity90"])
    for model in answers.lists:
        metrics = figures.metrics[model]
        novel = [answers.by_novelty(model, k).get(novelty) for k in compared for novelty in NOVELTIES]
        cells = [*(metrics.recall[k] for k in ks), *novel, metrics.diversity90]
        table.add_row(model, *("–" if cell is None else f"{cell:.4f}" for cell in cells))
    console.print(table)
    if Name.advertiser_model in answers.lists and len(answers.lists) > 1:
        leads = {row.metric: row for row in figures.leads}
        table = figure_table(
            f"{Name.advertiser_model} minus another model: paired bootstrap over users, 95 % interval",
            ["Minus", *(f"recall@{k}" for k in compared)],
        )
        for other in answers.lists:
            if other != Name.advertiser_model:
                rows = [leads[less(k, other)] for k in compared]
                table.add_row(other, *(f"{row.value:+.4f} ({row.low:+.4f} to {row.high:+.4f})" for row in rows))
        console.print(table)
    for model, training in answers.trainings.items():
        console.print(training.words(model), highlight=False)


def _log(evaluation: Evaluation, answers: Answers, figures: AdvertiserFigures, *, hashed: str) -> None:
    """Log each model's answers as an MLflow run: settings, figures, the data and the place of the lists."""
    tracking = Tracking(evaluation.home.tracking_uri, evaluation.home.artifacts)
    for model, metrics in figures.metrics.items():
        training = answers.trainings.get(model)
        path = evaluation.export_path(model, training)
        tags = {"model": model, "level": "advertiser", "dataset_hash": hashed, "lists": str(path.absolute())}
        measured = metrics.figures()
        for k in answers.compared_ks:
            measured |= {f"{each}.recall@{k}": value for each, value in answers.by_novelty(model, k).items()}
        if training:
            measured |= {"epochs": training.epochs, "training_seconds": training.seconds}
        with tracking.run(EVALUATIONS, f"{answers.split.name}: {model}, advertisers", tags):
            mlflow.log_params({"split": answers.split.name, "model": model, **answers.settings.flat()})
            mlflow.log_metrics(mlflow_metrics(measured))


def _known_models(names: Sequence[str]) -> list[Name]:
    """Return the models in the order of ``names``, each once."""
    for name in names:
        if name not in set(Name):
            raise RunRefused(f"--model {name!r} is no model of advertisers; there are {', '.join(Name)}.")
    return [Name[name] for name in dict.fromkeys(names)]

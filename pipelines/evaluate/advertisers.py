"""`adseq evaluate --level advertiser`: the advertisers that the users of a fixed split convert with next.

Each query with a history asks for the advertisers of its target items. Every known advertiser is a candidate, or those
of an index of stated size (``advertisers.report_index_size``). Advertisers are predicted once a day: a context item is
not read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ml.evaluation.advertiser_queries import AdvertiserQueries, had_before, query_lists, sampled_index
from ml.evaluation.advertiser_report import KNOWN, NEW, baseline_lists, bounded_ks
from ml.evaluation.metrics import DIVERSITY_DEPTH, evaluate, mlflow_metrics, recall_by_positive_segment, usable_ks
from ml.evaluation.model_names import AdvertiserModelName as Name
from ml.evaluation.queries import positions
from ml.evaluation.recall_rows import differences
from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
    advertiser_data,
    advertiser_examples,
    advertiser_settings,
    cross_fitted,
)
from ml.examples.nothing_to_learn import NothingToLearn
from ml.examples.period import TrainingPeriod
from ml.models.advertiser_model import AdvertiserNetwork
from ml.retrieval.lists import Ragged, RankedLists
from ml.training.advertiser_task import AdvertiserTask
from ml.training.fit import fit
from ml.versions.advertiser_version import pooled
from ml.versions.fingerprint import dataset_hash
from ml.versions.tracking import EVALUATIONS, Tracking
from pipelines.cli.errors import RunRefused
from pipelines.evaluate.answer_tables import WIDTH, AnswerOf, Training, figure_table, mean_and_deviation
from pipelines.evaluate.command import Evaluation
from pipelines.evaluate.split import Split, split_asked, training_period, write_whole
from pipelines.evaluate.work import work_directory
from settings import Settings
from warehouse.home import Home

TRAINED = (Name.mean_pooling, Name.advertiser_model)


def evaluate_advertisers(evaluation: Evaluation) -> None:
    """Answer the split's queries with advertisers, by every model and seed; export, log to MLflow and print each.

    Raises:
        RunRefused: a model is unknown, the directory is not a split, its items have no advertiser, nobody converts with
            one before the cut-off, no query with a history has a target with one, or targets are to be chosen by the
            events of items.
    """
    if evaluation.minimum_train_events:
        raise RunRefused("--min-train-events counts the events of items: leave it out with --level advertiser.")
    models, split, console = _known_models(evaluation.models), Split.read(evaluation.split), Console()
    console = Console(file=console.file, width=max(console.width, WIDTH))
    period = training_period(split, evaluation.landing, evaluation.settings)
    known = AdvertiserPeriod.of(period)
    if not len(known.advertiser_ids):
        raise RunRefused(f"{evaluation.landing.root}: no item of {split.name} has an advertiser_id; nothing to rank.")
    answers: list[Answer] = []
    hashed = dataset_hash(period)
    for seed in evaluation.seeds:
        settings = advertiser_settings(evaluation.settings.with_value("training.seed", seed))
        data = advertiser_data(known, settings, period.event_names)
        asked = Asked.of(split, period, data, settings=settings, index_seed=evaluation.seeds[0])
        # What is counted is the same for every seed.
        counted = [model for model in models if model not in TRAINED] if seed == evaluation.seeds[0] else []
        lists = baseline_lists(asked.queries, split.window_days, asked.depth) if counted else {}
        found = [asked.answer(model, lists[model], None) for model in counted]
        for model in models:
            if model in TRAINED:
                console.print(f"Training {model}, seed {seed} ...", highlight=False)
                chosen = pooled(settings) if model is Name.mean_pooling else settings
                network, training = _train(known, data, chosen, evaluation.home)
                found.append(asked.answer(model, query_lists(network, asked.queries, chosen, asked.depth), training))
        for answer in found:
            path = evaluation.export_path(answer.model.value, answer.training)
            write_whole(asked.frame(answer.lists), path)
            _log(evaluation, asked, answer, path=path, hashed=hashed)
            written = f"{answer.name}: the lists of {len(asked.queries):,} queries written to {path}"
            console.print(written, highlight=False, markup=False, soft_wrap=True)
        answers += found
    answers.sort(key=lambda answer: (models.index(answer.model), answer.seed))
    _show(console, asked, answers)


@dataclass(frozen=True)
class Answer(AnswerOf[Name]):
    """One advertiser model's lists, in rows of the queries' index, and their figures."""

    figures: Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """The queries of a split with a history, and the advertisers of their target items.

    Attributes:
        query_id, owners: [queries] of the split, and a number for the user of each.
        settings: under which the features of the queries were made.
    """

    split: Split
    queries: AdvertiserQueries
    query_id: pl.Series
    owners: NDArray[np.int64]
    settings: Settings

    @classmethod
    def of(
        cls, split: Split, period: TrainingPeriod, data: AdvertiserData, *, settings: Settings, index_seed: int
    ) -> Asked:
        """Return the queries under the features of ``data``.

        A target without an advertiser is left out; an advertiser that nobody knew at the cut-off is a miss.

        Raises:
            RunRefused: nothing is left.
        """
        asked = split_asked(split, period, data.dataset, settings)
        queries, log, of_item = asked.queries, asked.dataset.log, data.advertisers.of_item
        by_advertiser = replace(log, item=np.where(log.item >= 0, of_item[np.maximum(log.item, 0)], -1))
        query, place = queries.positives.query_rows, queries.positives.items
        target = queries.candidates[np.maximum(place, 0)]
        usable = (place >= 0) & (of_item[target] >= 0) & (queries.user[query] >= 0)
        query, advertiser = np.unique(np.stack([query[usable], of_item[target[usable]]]), axis=1)
        if not len(query):
            raise RunRefused(f"{split.name}: no query with a history has a target item with an advertiser_id.")
        rows = np.unique(query)
        index = sampled_index(
            data.advertisers.known(queries.as_of),
            np.unique(advertiser),
            settings.advertisers.report_index_size,
            index_seed,
        )
        known_until = np.zeros(log.users, np.int64)
        known_until[queries.user[rows]] = queries.history_end[rows]
        of_split = split.queries[rows]
        return cls(
            split=split,
            queries=AdvertiserQueries(
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
            ),
            query_id=of_split["query_id"],
            owners=of_split["user_id"].rank("dense").to_numpy().astype(np.int64) - 1,
            settings=settings,
        )

    @property
    def ks(self) -> list[int]:
        """Return the list lengths, each below the size of the index."""
        return usable_ks(self.settings.evaluation.ks, len(self.queries.index))

    @property
    def compared_ks(self) -> list[int]:
        """Return the list lengths with intervals, and with the advertisers that a user knew apart."""
        return bounded_ks(self.settings.evaluation.ks, len(self.queries.index))

    @property
    def depth(self) -> int:
        return max(DIVERSITY_DEPTH, *self.settings.evaluation.ks)

    def answer(self, model: Name, lists: RankedLists, training: Training | None) -> Answer:
        """Return the lists with their figures."""
        positives = self.queries.positives
        figures = evaluate(lists, positives, len(self.queries.index), ks=self.ks).figures()
        for k in self.compared_ks:
            labels = np.where(self.queries.repeated, KNOWN, NEW)
            apart = recall_by_positive_segment(lists, positives, labels, k).select("segment", "recall")
            figures |= {f"{novelty}.recall@{k}": recall for novelty, recall in apart.iter_rows()}
        return Answer(model, training, lists, figures)

    def frame(self, lists: RankedLists) -> pl.DataFrame:
        """Return query_id, rank (1 = best), advertiser_id."""
        query, place = np.nonzero(lists.items >= 0)
        advertisers = self.queries.advertisers.advertiser_ids.gather(self.queries.index[lists.items[query, place]])
        return pl.DataFrame({"query_id": self.query_id.gather(query), "rank": place + 1, "advertiser_id": advertisers})


def _train(
    known: AdvertiserPeriod, data: AdvertiserData, settings: Settings, home: Home
) -> tuple[AdvertiserNetwork, Training]:
    """Return a network trained until the cut-off.

    Raises:
        RunRefused: nobody converts with an advertiser before the cut-off.
    """
    started = time.perf_counter()
    with work_directory(home) as work:
        task = AdvertiserTask(cross_fitted(data, known, settings), advertiser_examples(known, data, settings), settings)
        try:
            fitted = fit(task, settings.training.epochs, work)
        except NothingToLearn as reason:
            raise RunRefused(str(reason)) from reason
    return fitted.network, Training(settings.training.seed, fitted.epochs, time.perf_counter() - started)


def _show(console: Console, asked: Asked, answers: Sequence[Answer]) -> None:
    """Print the figures, their spread over seeds, and the first model's lead over the others."""
    queries = asked.queries
    known = len(queries.advertisers.known(queries.as_of))
    title = (
        f"{asked.split.name}, advertisers: {len(queries.positives.items):,} positives of {len(queries):,} queries with "
        f"a history; an index of {len(queries.index):,} of {known:,} known advertisers"
    )
    overall = [*(f"recall@{k}" for k in asked.ks), "diversity90"]
    apart = [f"{novelty}.recall@{k}" for k in asked.compared_ks for novelty in (KNOWN, NEW)]
    console.print(_figures(title, answers, overall))
    console.print(_figures("Advertisers that a user knew, and new ones", answers, apart))
    if len({answer.seed for answer in answers if answer.training}) > 1:
        table = figure_table("Mean ± standard deviation over seeds", ["Model", *overall])
        for model, group in groupby(answers, key=lambda answer: answer.model):
            measured = [answer.figures for answer in group]
            table.add_row(model.value, *(mean_and_deviation([each[name] for each in measured]) for name in overall))
        console.print(table)
    if len({answer.model for answer in answers}) > 1:
        console.print(_leads(asked, answers))
    for answer in answers:
        if answer.training:
            console.print(answer.training.words(answer.model), highlight=False)


def _figures(title: str, answers: Sequence[Answer], figures: Sequence[str]) -> Table:
    """Return a table with a row for each answer."""
    table = figure_table(title, ["Model", "Seed", *figures])
    for answer in answers:
        cells = (f"{answer.figures[name]:.4f}" if name in answer.figures else "–" for name in figures)
        table.add_row(answer.model.value, str(answer.seed) if answer.training else "", *cells)
    return table


def _leads(asked: Asked, answers: Sequence[Answer]) -> Table:
    """Return a table of the first model's answers minus every other answer, seed by seed."""
    ours, settings = answers[0].model, asked.settings.evaluation
    table = figure_table(
        f"{ours} minus another model: paired bootstrap over users, 95 % interval",
        ["Minus", "Seed", *(f"recall@{k}" for k in asked.compared_ks)],
    )
    for other in answers:
        for one in answers:
            if one.model is not ours or other.model is ours:
                continue
            if one.training and other.training and one.seed != other.seed:
                continue
            found = differences(
                ours,
                {ours: one.lists, other.model: other.lists},
                asked.queries.positives,
                ks=asked.compared_ks,
                samples=settings.bootstrap_samples,
                seed=0,
                owners=asked.owners,
            )
            cells = (f"{row.value:+.4f} ({row.low:+.4f} to {row.high:+.4f})" for row in found)
            seed = max(one.seed, other.seed)
            table.add_row(other.model.value, str(seed) if seed >= 0 else "", *cells)
    return table


def _log(evaluation: Evaluation, asked: Asked, answer: Answer, *, path: Path, hashed: str) -> None:
    """Log one model's answers as an MLflow run: settings, figures, the data and the place of the lists."""
    tracking = Tracking(evaluation.home.tracking_uri, evaluation.home.artifacts)
    tags = {"model": answer.model, "level": "advertiser", "dataset_hash": hashed, "lists": str(path.absolute())}
    figures = dict(answer.figures)
    if answer.training:
        figures |= {"epochs": answer.training.epochs, "training_seconds": answer.training.seconds}
    with tracking.run(EVALUATIONS, f"{asked.split.name}: {answer.name}, advertisers", tags):
        mlflow.log_params({"split": asked.split.name, "model": answer.model, **asked.settings.flat()})
        mlflow.log_metrics(mlflow_metrics(figures))


def _known_models(names: Sequence[str]) -> list[Name]:
    """Return the models in the order of ``names``, each once."""
    for name in names:
        if name not in set(Name):
            raise RunRefused(f"--model {name!r} is no model of advertisers; there are {', '.join(Name)}.")
    return [Name[name] for name in dict.fromkeys(names)]

"""The answers of `adseq evaluate` as tables: each of them, the spread over seeds, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Generic, TypeVar

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ml.evaluation.metrics import Metrics, usable_ks
from ml.evaluation.model_names import ModelName
from ml.retrieval.lists import RankedLists
from pipelines.evaluate.scoring import Catalogue, Scoring
from settings import Settings

COMPARED_KS = (10, 100)
WIDTH = 140  # what the widest table needs; a narrower terminal wraps its lines rather than every cell


@dataclass(frozen=True)
class Training:
    """The training of an answer's network."""

    seed: int
    epochs: int
    seconds: float

    def words(self, model: str) -> str:
        """Return the training in a sentence."""
        return f"{model}, seed {self.seed}: {self.seconds:.0f} s of training, {self.epochs} epochs"


Model = TypeVar("Model", bound=StrEnum)


@dataclass(frozen=True)
class AnswerOf(Generic[Model]):
    """One model's lists for a split's queries."""

    model: Model
    training: Training | None  # None: counted rather than trained, and so the same for every seed
    lists: RankedLists

    @property
    def seed(self) -> int:
        """Return the seed of the training; -1 where there is no training."""
        return self.training.seed if self.training else -1

    @property
    def name(self) -> str:
        return f"{self.model}" + (f", seed {self.training.seed}" if self.training else "")


@dataclass(frozen=True)
class Answer(AnswerOf[ModelName]):
    """One item model's lists, and their figures."""

    metrics: Mapping[Catalogue, Metrics]
    settings: Settings


FIGURES = ("recall@10", "recall@100", "macro_recall@10", "advertiser_hit@10", "diversity90", "advertiser_diversity90")
"""What is printed; every other figure is in MLflow."""


def show(console: Console, split: str, scoring: Scoring, *, answers: Sequence[Answer], samples: int) -> None:
    """Print the tables of all answers, which are grouped by model."""
    console = Console(file=console.file, width=max(console.width, WIDTH))
    for catalogue in Catalogue:
        console.print(_figures(split, catalogue, answers))
    if len({answer.training.seed for answer in answers if answer.training}) > 1:
        for catalogue in Catalogue:
            console.print(_spread(split, catalogue, answers))
    if len({answer.model for answer in answers}) > 1:
        console.print(_differences(scoring, answers, samples))
    trainings = {(answer.model.base, answer.training): None for answer in answers if answer.training}
    for model, training in trainings:
        assert training is not None
        console.print(training.words(model), highlight=False)


def _figures(split: str, catalogue: Catalogue, answers: Sequence[Answer]) -> Table:
    metrics = answers[0].metrics[catalogue]
    title = f"{split}, {catalogue} catalogue: {metrics.positives:,} targets of {metrics.queries:,} queries"
    table = figure_table(title, ["Model", "Seed", *FIGURES])
    for answer in answers:
        figures = answer.metrics[catalogue].figures()
        seed = str(answer.training.seed) if answer.training else ""
        table.add_row(
            answer.model.value, seed, *(f"{figures[name]:.5f}" if name in figures else "–" for name in FIGURES)
        )
    return table


def _spread(split: str, catalogue: Catalogue, answers: Sequence[Answer]) -> Table:
    """Return a table of the mean ± sample standard deviation over the seeds of each trained model."""
    table = figure_table(f"{split}, {catalogue} catalogue: mean ± standard deviation over seeds", ["Model", *FIGURES])
    for model, group in groupby(answers, key=lambda answer: answer.model):
        measured = [answer.metrics[catalogue].figures() for answer in group]
        cells = []
        for name in FIGURES:
            values = [figures[name] for figures in measured if name in figures]
            cells.append(mean_and_deviation(values) if values else "–")
        table.add_row(model.value, *cells)
    return table


def _differences(scoring: Scoring, answers: Sequence[Answer], samples: int) -> Table:
    """Return a table of the first model's answers minus every other answer, seed by seed.

    A counted model is compared with every seed.
    """
    first = [answer for answer in answers if answer.model is answers[0].model]
    compared = usable_ks(COMPARED_KS, int(scoring.warm.sum()))
    table = figure_table(
        f"{first[0].model.value} minus another model, warm catalogue: paired bootstrap over queries, 95 % interval",
        ["Minus", "Seed", *(f"recall@{k}" for k in compared)],
    )
    for other in answers:
        for one in first:
            if other.model is one.model or (one.training and other.training and one.seed != other.seed):
                continue
            found = [scoring.difference(one.lists, other.lists, k, samples) for k in compared]
            cells = (f"{each.estimate:+.5f} ({each.low:+.5f} to {each.high:+.5f})" for each in found)
            seed = max(one.seed, other.seed)
            table.add_row(other.model.value, str(seed) if seed >= 0 else "", *cells)
    return table


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return the mean ± the sample standard deviation in words; one value stands by itself."""
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def figure_table(title: str, columns: Sequence[str]) -> Table:
    """Return an empty table whose first column is left-aligned and never wrapped."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table

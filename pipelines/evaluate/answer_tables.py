"""The answers of `adseq evaluate` as tables: each of them, the spread over seeds, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ml.evaluation.evaluable import Evaluable
from ml.evaluation.metrics import Metrics, usable_ks
from ml.retrieval.lists import RankedLists
from pipelines.evaluate.scoring import Catalogue, Scoring
from settings import Settings

COMPARED_KS = (10, 100)
WIDTH = 140  # what the widest table needs; a narrower terminal wraps its lines rather than every cell


@dataclass(frozen=True)
class Training:
    """How an answer's network came about."""

    seed: int
    epochs: int
    seconds: float  # choosing the number of epochs included


@dataclass(frozen=True)
class Answer:
    """One model's lists for a split's queries, and what they are worth."""

    evaluable: Evaluable
    training: Training | None  # None: counted rather than trained, and so the same for every seed
    lists: RankedLists
    metrics: Mapping[Catalogue, Metrics]
    settings: Settings

    @property
    def seed(self) -> int:
        """-1 where there is none."""
        return self.training.seed if self.training else -1

    @property
    def name(self) -> str:
        return self.evaluable.value + (f", seed {self.training.seed}" if self.training else "")


FIGURES: Mapping[str, Callable[[Metrics], float | None]] = {
    "R@10": lambda metrics: metrics.recall.get(10),
    "R@100": lambda metrics: metrics.recall.get(100),
    "mean R@10 of users": lambda metrics: metrics.macro_recall.get(10),
    "advertiser hit@10": lambda metrics: metrics.advertiser_hit.get(10),
    "diversity90": lambda metrics: metrics.diversity90,
    "advertiser diversity90": lambda metrics: metrics.advertiser_diversity90,
}
"""What is printed; every other figure is in MLflow."""


def show(console: Console, split: str, scoring: Scoring, *, answers: Sequence[Answer], samples: int) -> None:
    """Print the tables of all answers, which stand together by model."""
    console = Console(file=console.file, width=max(console.width, WIDTH))
    for catalogue in Catalogue:
        console.print(_figures(split, catalogue, answers))
    if len({answer.training.seed for answer in answers if answer.training}) > 1:
        for catalogue in Catalogue:
            console.print(_spread(split, catalogue, answers))
    if len({answer.evaluable for answer in answers}) > 1:
        console.print(_differences(scoring, answers, samples))
    trainings = {(answer.evaluable.model, answer.training): None for answer in answers if answer.training}
    for model, training in trainings:
        assert training is not None
        console.print(
            f"{model}, seed {training.seed}: {training.seconds:.0f} s of training, "
            f"the choice of {training.epochs} epochs included",
            highlight=False,
        )


def _figures(split: str, catalogue: Catalogue, answers: Sequence[Answer]) -> Table:
    metrics = answers[0].metrics[catalogue]
    title = f"{split}, {catalogue} catalogue: {metrics.positives:,} targets of {metrics.queries:,} queries"
    table = _table(title, ["Model", "Seed", *FIGURES])
    for answer in answers:
        found = (figure(answer.metrics[catalogue]) for figure in FIGURES.values())
        seed = str(answer.training.seed) if answer.training else ""
        table.add_row(answer.evaluable.value, seed, *("–" if value is None else f"{value:.5f}" for value in found))
    return table


def _spread(split: str, catalogue: Catalogue, answers: Sequence[Answer]) -> Table:
    """Mean ± sample standard deviation over the seeds of each trained model."""
    table = _table(f"{split}, {catalogue} catalogue: mean ± standard deviation over seeds", ["Model", *FIGURES])
    for evaluable, group in groupby(answers, key=lambda answer: answer.evaluable):
        measured = [answer.metrics[catalogue] for answer in group]
        cells = []
        for figure in FIGURES.values():
            values = [value for value in map(figure, measured) if value is not None]
            cells.append(_mean_and_deviation(values) if values else "–")
        table.add_row(evaluable.value, *cells)
    return table


def _differences(scoring: Scoring, answers: Sequence[Answer], samples: int) -> Table:
    """Every other answer against those of the first model, seed by seed; a counted model stands against every seed."""
    first = [answer for answer in answers if answer.evaluable is answers[0].evaluable]
    compared = usable_ks(COMPARED_KS, int(scoring.warm.sum()))
    table = _table(
        f"{first[0].evaluable.value} minus another model, warm catalogue: paired bootstrap over queries, 95 % interval",
        ["Minus", "Seed", *(f"R@{k}" for k in compared)],
    )
    for other in answers:
        for one in first:
            if other.evaluable is one.evaluable or (one.training and other.training and one.seed != other.seed):
                continue
            found = [scoring.difference(one.lists, other.lists, k, samples) for k in compared]
            cells = (f"{each.estimate:+.5f} ({each.low:+.5f} to {each.high:+.5f})" for each in found)
            seed = max(one.seed, other.seed)
            table.add_row(other.evaluable.value, str(seed) if seed >= 0 else "", *cells)
    return table


def _mean_and_deviation(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table

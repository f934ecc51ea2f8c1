"""Recall against the bytes of a stored state: fusions, how many events they keep, and the precision of the numbers.

``python -m benchmarks.states --split SPLITS/sports-context --landing LANDING`` measures on the validation slice inside
the split's training part; the split's queries and targets are not read. In context: days of the slice with several
conversions, the first of them looked at (a basket proxy).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import Table
from ml.evaluation.metrics import evaluate
from ml.evaluation.model_lists import lists_of_states, states_of
from ml.evaluation.queries import EvaluationSet
from ml.models.item_model import TwoTower
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from ml.tuning.trials import Objective, Tuning
from pipelines.evaluate.split import Split, training_period
from settings import Fusion, Settings
from warehouse.landing import Landing

SHAPES = ((Fusion.concat, 0), *((Fusion.cross_attention, events) for events in (4, 8, 16, 32)))
PRECISIONS = ("float32", "float16", "int8")
KS = (10, 100)


@dataclass(frozen=True)
class Measured:
    """One shape at one precision."""

    fusion: Fusion
    events: int
    precision: str
    size: int  # bytes a state
    home: dict[int, float]  # recall by K
    context: dict[int, float]


def stored(states: NDArray[np.float32], precision: str) -> tuple[NDArray[np.float32], int]:
    """Return states [users, width] as read back from a store of ``precision``, and the bytes of one stored state."""
    width = states.shape[1]
    if precision == "float32":
        return states, 4 * width
    if precision == "float16":
        return states.astype(np.float16).astype(np.float32), 2 * width
    scale = np.maximum(np.abs(states).max(axis=1, keepdims=True), 1e-12) / 127  # a scale of its own for each user
    return (np.rint(states / scale) * scale).astype(np.float32), width + 4


def measure(tuning: Tuning, settings: Settings) -> list[Measured]:
    """Train one shape and measure the shape at every precision."""
    with tempfile.TemporaryDirectory() as directory:
        epochs = settings.training.epochs
        task = ItemTask.of(tuning.earlier, tuning.prepared, settings, tuning.asked)
        fitted = fit(task, epochs, Path(directory))
    places = [each for each in (tuning.asked, tuning.in_context) if each is not None]
    states = [states_of(fitted.network, asked, settings) for asked in places]
    shape, found = settings.model, []
    for precision in PRECISIONS:
        recalls, size = [], 0
        for asked, exact in zip(places, states, strict=True):
            kept, size = stored(exact, precision)
            recalls.append(_recall(fitted.network, asked, kept, settings))
        events = shape.fusion_events if shape.fusion is Fusion.cross_attention else 0
        found.append(Measured(shape.fusion, events, precision, size, recalls[0], recalls[-1]))
    return found


def _recall(
    network: TwoTower, asked: EvaluationSet, states: NDArray[np.float32], settings: Settings
) -> dict[int, float]:
    lists, queries = lists_of_states(network, asked, states, settings=settings, depth=max(KS)), asked.queries
    nobody = np.full(len(queries.candidates), -1)
    return dict(evaluate(lists, queries.positives, len(queries.candidates), advertisers=nobody, ks=KS).recall)


def table(rows: list[Measured]) -> Table:
    """Return the table for people."""
    return Table(
        "Recall@10 / Recall@100 against the bytes of a state",
        ("fusion", "kept events", "numbers", "bytes a user", "from the history", "in context"),
        tuple(
            (
                row.fusion.value,
                str(row.events),
                row.precision,
                f"{row.size:,}",
                f"{row.home[10]:.4f} / {row.home[100]:.4f}",
                f"{row.context[10]:.4f} / {row.context[100]:.4f}",
            )
            for row in rows
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall against the bytes of a stored state.")
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--landing", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = Settings().with_value("training.seed", arguments.seed)
    period = training_period(Split.read(arguments.split), Landing(arguments.landing), settings)
    tuning = Tuning.of(period, settings, Objective.context_recall_at_100, set())
    rows: list[Measured] = []
    for fusion, events in SHAPES:
        shaped = settings.with_value("model.fusion", fusion)
        rows += measure(tuning, shaped.with_value("model.fusion_events", events) if events else shaped)
        table(rows).show(Console())
    print(table(rows).markdown())


if __name__ == "__main__":
    main()

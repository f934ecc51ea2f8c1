"""What does diversity cost in recall: by the negatives' correction in training, and by popularity at index time?

``python -m benchmarks.diversity --split SPLITS/sports-temporal --landing LANDING`` or ``--home HOME`` trains once for
each weight of the negatives' log-Q correction until the last window of the training period, and asks for the
conversions of that window, on the home feed and beside an item (the first item of a basket). Each training is asked
again with a popularity offset on the scores, which needs no training: the weight times the temperature times
log(1 + the item's events of the last window) is taken off (logit adjustment, Menon et al. 2021).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import Table
from benchmarks.training_period import parser_of, period_of
from ml.evaluation.metrics import Metrics, evaluate
from ml.evaluation.model_lists import embeddings_of_states, states_of
from ml.evaluation.queries import EvaluationSet
from ml.models.item_model import TwoTower
from ml.retrieval.lists import search
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from ml.tuning.trials import Objective, Tuning
from settings import Settings

ALPHAS, WEIGHTS = (1.0, 0.5, 0.25), (0.0, 0.1, 0.2, 0.4)
KS = (10, 100)


@dataclass(frozen=True)
class Point:
    """A model under one popularity weight."""

    alpha: float  # weight of the log-Q correction of the negatives
    weight: float  # of the popularity offset
    home: Metrics
    beside: Metrics | None  # None where the slice has no baskets


def measure(tuning: Tuning, settings: Settings, weights: list[float]) -> Iterator[Point]:
    """Train once and measure under each weight."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        task = ItemTask.of(tuning.earlier, tuning.prepared, settings, tuning.asked)
        network = fit(task, settings.training.maximum_epochs, Path(directory)).network
    home = _embedded(network, tuning.asked, settings)
    beside = None if tuning.in_context is None else _embedded(network, tuning.in_context, settings)
    for weight in weights:
        yield Point(
            settings.training.alpha_negative,
            weight,
            home.metrics(weight),
            None if beside is None else beside.metrics(weight),
        )


@dataclass(frozen=True)
class _Embedded:
    asked: EvaluationSet
    users: NDArray[np.float32]  # [queries, width]
    items: NDArray[np.float32]  # [candidates, width]
    temperature: float

    def metrics(self, weight: float) -> Metrics:
        """Return the figures of the lists under a popularity weight."""
        queries = self.asked.queries
        recent, ever = (self.asked.events_of_items(days)[queries.candidates] for days in (self.asked.recent_days, None))
        offset = (-weight * self.temperature * np.log1p(recent)).astype(np.float32)
        one = np.ones(len(self.users), np.float32)
        users, items = np.column_stack([self.users, one]), np.column_stack([self.items, offset])
        lists = search(users, items, max(KS), exclude=queries.exclude)
        return evaluate(lists, queries.positives, len(queries.candidates), ks=KS, popularity=ever)


def _embedded(network: TwoTower, asked: EvaluationSet, settings: Settings) -> _Embedded:
    users, items = embeddings_of_states(network, asked, states_of(network, asked, settings), settings)
    return _Embedded(asked, users, items, float(network.log_temperature.detach().exp()))


def table_of(points: list[Point]) -> Table:
    """Return one row a point."""

    def figures(found: Metrics | None) -> tuple[str, str]:
        if found is None:
            return "", ""
        return f"{found.recall[10]:.4f} / {found.recall[100]:.4f}", f"{found.diversity90:.3f}"

    columns = ("α⁻", "popularity weight", "home feed", "diversity90", "beside an item", "diversity90 ")
    rows = tuple((f"{each.alpha:g}", f"{each.weight:g}", *figures(each.home), *figures(each.beside)) for each in points)
    return Table("Recall@10 / Recall@100 against diversity", columns, rows)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, epochs=5)
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    given = parser.parse_args()
    period, settings = period_of(given)
    tuning = Tuning.of(period, settings, Objective.recall_at_100, set())
    points: list[Point] = []
    for alpha in given.alphas:
        points += measure(tuning, settings.with_value("training.alpha_negative", alpha), given.weights)
        table_of(points).show(Console(width=140))


if __name__ == "__main__":
    main()

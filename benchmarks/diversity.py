"""What does diversity cost in recall: by the negatives' correction in training, and by popularity at index time?

``python -m benchmarks.diversity --split SPLITS/sports-temporal --landing LANDING`` or ``--home HOME`` trains once for
each weight of the negatives' log-Q correction until the last window of the training period, and asks for the
conversions of that window, on the home feed and beside an item (the first item of a basket). Each training is asked
again under each ``index.popularity_weight``, which needs no training.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.report import Table
from benchmarks.training_period import parser_of, period_of
from ml.evaluation.metrics import Metrics, evaluate
from ml.evaluation.popularity_front import POPULARITY_WEIGHTS, lists_by_weight
from ml.evaluation.queries import EvaluationSet
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from ml.tuning.trials import Objective, Tuning
from settings import Settings

ALPHAS = (1.0, 0.5, 0.25)
KS = (10, 100)


@dataclass(frozen=True)
class Point:
    """A model under one popularity weight."""

    alpha: float  # weight of the log-Q correction of the negatives
    weight: float  # index.popularity_weight
    home: Metrics
    beside: Metrics | None  # None where the slice has no baskets


def measure(tuning: Tuning, settings: Settings, weights: list[float]) -> list[Point]:
    """Train once and measure under each weight."""
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        task = ItemTask.of(tuning.earlier, tuning.prepared, settings, tuning.asked)
        network = fit(task, settings.training.epochs, Path(directory)).network

    def figures(asked: EvaluationSet) -> list[Metrics]:
        lists = lists_by_weight(network, asked, settings, weights=weights, depth=max(KS))
        positives, candidates = asked.queries.positives, asked.queries.candidates
        return [evaluate(each, positives, len(candidates), ks=KS) for each in lists.values()]

    home = figures(tuning.asked)
    beside = [None] * len(weights) if tuning.in_context is None else figures(tuning.in_context)
    alpha = settings.training.alpha_negative
    return [Point(alpha, *of_weight) for of_weight in zip(weights, home, beside, strict=True)]


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
    parser.add_argument("--weights", type=float, nargs="+", default=POPULARITY_WEIGHTS)
    given = parser.parse_args()
    period, settings = period_of(given)
    tuning = Tuning.of(period, settings, Objective.recall_at_100, set())
    points: list[Point] = []
    for alpha in given.alphas:
        points += measure(tuning, settings.with_value("training.alpha_negative", alpha), given.weights)
        table_of(points).show(Console(width=140))


if __name__ == "__main__":
    main()

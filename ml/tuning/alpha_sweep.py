"""The sweep over the weights of the log-Q correction: one fit a point, Recall@100 against diversity90.

With T the end of the period and K the window, every point learns until T - K from the same prepared examples, for the
same number of epochs, and is measured on [T - K, T). Only the loss differs.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import mlflow
import numpy as np
from lightning.pytorch.loggers import MLFlowLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ml.evaluation.item_report import advertiser_codes
from ml.evaluation.metrics import evaluate, mlflow_metrics, usable_ks
from ml.evaluation.model_lists import trained_lists
from ml.evaluation.queries import EvaluationSet, newest_window
from ml.examples.period import Prepared, TrainingPeriod, prepare
from ml.figures.charts import pareto_scatter
from ml.training.fit import fit
from ml.training.item_task import ItemTask
from ml.tuning.pareto import SweepPoint, most_diverse, on_front, points_frame
from ml.versions.tracking import SWEEPS, Tracking, log_figures
from settings import Settings

KS = (10, 100)


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep."""

    points: list[SweepPoint]
    best: SweepPoint  # the most diverse within the tolerance of recall
    figure: Figure
    url: str  # of the MLflow run
    queries: int


def sweep_alphas(
    period: TrainingPeriod,
    settings: Settings,
    tracking: Tracking,
    *,
    models: Path,
    name: str,
    tags: dict[str, str],
) -> Sweep:
    """Fit and measure every pair of ``settings.sweep``, as nested runs of one MLflow run.

    Args:
        period: all that may be learnt from or measured on.
        models: where checkpoints lie while a fit runs.
        name: of the MLflow run. tags: of all its runs.
    """
    tracking.close_abandoned(SWEEPS)
    models.mkdir(parents=True, exist_ok=True)
    earlier = period.until(period.end - period.window)
    prepared = prepare(earlier, settings)
    asked = newest_window(period, prepared.dataset, settings)
    advertisers = advertiser_codes(period.items)[asked.queries.candidates]
    points: list[SweepPoint] = []
    grid = list(variants(settings))
    # What a killed sweep leaves behind, the next training takes away: it clears .training-*.
    with (
        tracking.run(SWEEPS, f"alpha_sweep {name}", tags) as run,
        tempfile.TemporaryDirectory(prefix=".training-sweep-", dir=models) as checkpoints,
    ):
        mlflow.log_params({**settings.flat(), "data.events": len(earlier.events), "queries": len(asked.queries)})
        for number, variant in enumerate(grid, start=1):
            directory = Path(checkpoints) / str(number)
            points.append(
                _measure(
                    earlier,
                    prepared,
                    asked,
                    advertisers=advertisers,
                    settings=variant,
                    tracking=tracking,
                    tags=tags,
                    directory=directory,
                )
            )
            _announce(f"point {number} of {len(grid)}, {_in_words(points[-1])}")
        best = most_diverse(points, settings.sweep.recall_tolerance)
        figure = front_figure(
            points, f"Conversions of {period.rule.window_days:g} days, {settings.sweep.epochs} epochs"
        )
        log_figures({"pareto_front": figure})
        mlflow.log_text(points_frame(points).write_csv(), "points.csv")
        best_figures = {
            "best_alpha_positive": best.alpha_positive,
            "best_alpha_negative": best.alpha_negative,
            "best_diversity90": best.diversity90,
            "best_recall@100": None if math.isnan(best.recall_at_100) else best.recall_at_100,
        }
        mlflow.log_metrics(mlflow_metrics(best_figures))
    return Sweep(points, best, figure, tracking.url(run), len(asked.queries))


def variants(settings: Settings) -> Iterator[Settings]:
    """Yield the settings under each pair of the grid."""
    for positive, negative in product(settings.sweep.alphas_positive, settings.sweep.alphas_negative):
        alphas = {"alpha_positive": positive, "alpha_negative": negative}
        yield settings.model_copy(update={"training": settings.training.model_copy(update=alphas)})


def front_figure(points: list[SweepPoint], subtitle: str) -> Figure:
    """Draw the points with their weights, and the front."""
    labelled = {point.label: (point.diversity90, point.recall) for point in points}
    front = [point.label for point, chosen in zip(points, on_front(points), strict=True) if chosen]
    return pareto_scatter(labelled, front, 100, f"{subtitle}; labels: alpha of the positive / of the negatives")


def _measure(
    earlier: TrainingPeriod,
    prepared: Prepared,
    asked: EvaluationSet,
    *,
    advertisers: NDArray[np.int64],
    settings: Settings,
    tracking: Tracking,
    tags: dict[str, str],
    directory: Path,
) -> SweepPoint:
    """Fit and measure one point in a nested MLflow run."""
    training, queries = settings.training, asked.queries
    name = f"alpha {training.alpha_positive:g} / {training.alpha_negative:g}"
    with tracking.run(SWEEPS, name, tags, nested=True) as run:
        mlflow.log_params(settings.flat())
        logger = MLFlowLogger(experiment_name=SWEEPS, tracking_uri=tracking.uri, run_id=run.info.run_id)
        fitted = fit(ItemTask.of(earlier, prepared, settings), settings.sweep.epochs, directory, logger=logger)
        lists = trained_lists(fitted.network, asked, settings, 100)
        size = len(queries.candidates)
        metrics = evaluate(lists, queries.positives, size, advertisers=advertisers, ks=usable_ks(KS, size))
        mlflow.log_metrics(mlflow_metrics({**metrics.figures(), "fit_seconds": fitted.seconds}))
    return SweepPoint(
        alpha_positive=training.alpha_positive,
        alpha_negative=training.alpha_negative,
        recall_at_10=metrics.recall.get(10, float("nan")),
        recall_at_100=metrics.recall.get(100, float("nan")),
        advertiser_hit_at_10=metrics.advertiser_hit.get(10, float("nan")),
        diversity90=metrics.diversity90,
        seconds=fitted.seconds,
    )


def _in_words(point: SweepPoint) -> str:
    return (
        f"alpha {point.label}: recall@100 {point.recall_at_100:.4f}, diversity90 {point.diversity90:.3f}, "
        f"{point.seconds:.0f} s"
    )


def _announce(what: str) -> None:
    print(f"    sweep: {what}", file=sys.stderr, flush=True)

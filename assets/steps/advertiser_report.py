"""The advertiser recall report's work: measure the newest version, draw, log to MLflow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.item_reports import Table
from assets.steps.period import training_period
from assets.steps.versions import advertiser_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AdvertiserReport(Table):
    """Figures of every model, and the plots."""

    curve: "Figure"
    intervals: "Figure"
    by_conversion: "Figure"
    by_novelty: "Figure"
    diversity: "Figure"
    index: int  # advertisers that were ranked
    known: int  # advertisers known at the cut-off, of which the index is a sample
    users: int
    positives: int
    unknown_positives: int  # misses by necessity


def report_on(workspace: Workspace, tags: dict[str, str]) -> AdvertiserReport | None:
    """Measure the newest version's evaluation model and the baselines beside it; None without a version or a
    conversion in its newest window."""
    import mlflow

    from ml.evaluation.advertiser_report import MODEL, compare_advertisers, measure_advertisers
    from ml.examples.advertiser_period import AdvertiserPeriod
    from ml.figures.charts import diversity_scatter, recall_curve, recall_interval_bars, segment_bars
    from ml.versions.tracking import REPORTS, log_figures
    from ml.versions.work_directory import dataset_hash

    known = advertiser_versions(workspace.tables, workspace.home).all()
    if not known:
        return None
    version, effective, tracking = known[-1], workspace.settings, workspace.tracking
    period = training_period(workspace.tables, workspace.landing, version.trained_day, effective)
    whole = AdvertiserPeriod.of(period)
    comparison = compare_advertisers(whole, version.directory, effective)
    evaluation, queries = effective.evaluation, comparison.queries
    if not len(queries):
        return None
    figures = measure_advertisers(
        comparison,
        period.event_names,
        evaluation.ks,
        samples=evaluation.bootstrap_samples,
        seed=effective.training.seed,
    )
    size = len(queries.index)
    subtitle = f"Conversions of the {period.rule.window_days:g} days up to {version.trained_day}; {size:,} advertisers"
    metrics, first_k = figures.metrics, min(figures.intervals[MODEL])
    drawn = {
        "curve": recall_curve({name: each.recall for name, each in metrics.items()}, subtitle),
        "intervals": recall_interval_bars({name: each[first_k] for name, each in figures.intervals.items()}, first_k),
        "by_conversion": segment_bars(figures.by_conversion, "Conversion type", figures.segment_k),
        "by_novelty": segment_bars(figures.by_novelty, "Advertiser of the user's history", figures.segment_k),
        "diversity": diversity_scatter(
            {name: (each.diversity90, each.recall[first_k]) for name, each in metrics.items()}, first_k
        ),
    }
    run_tags = {**tags, "model_version": version.name, "training_run_id": version.run_id}
    with tracking.run(REPORTS, f"advertiser_recall_report {version.trained_day}", run_tags) as run:
        mlflow.log_params({**effective.flat(), "index": size, "known_advertisers": comparison.known_advertisers})
        mlflow.set_tag("dataset_hash", dataset_hash(period))
        mlflow.log_metrics(metrics[MODEL].flat())
        log_figures(drawn)
        for name, each in metrics.items():
            with tracking.run(REPORTS, f"advertisers {name}", {"model": name}, nested=True):
                mlflow.log_params({"model": name, "index": size})
                mlflow.log_metrics(each.flat())
    schema = {"model": pl.String(), "metric": pl.String(), "value": pl.Float64()}
    return AdvertiserReport(
        table=pl.DataFrame(figures.rows(), schema=schema, orient="row"),
        url=tracking.url(run),
        **drawn,
        index=size,
        known=comparison.known_advertisers,
        users=len(queries),
        positives=len(queries.positives.items),
        unknown_positives=int((queries.positives.items < 0).sum()),
    )

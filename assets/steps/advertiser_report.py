"""The advertiser recall report's work: measure the newest version and the baselines beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.period import training_period
from assets.steps.store_report import Report, StoredReport, clear_report, store_report
from assets.steps.versions import advertiser_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AdvertiserReport:
    """The figures of every model, and what the asset's page says."""

    kept: StoredReport
    drawn: Mapping[str, Figure]
    index: int  # advertisers that were ranked
    known: int  # advertisers known at the cut-off, of which the index is a sample
    users: int
    positives: int
    unknown_positives: int  # misses by necessity


def report_advertisers(workspace: Workspace, tags: Mapping[str, str]) -> AdvertiserReport | None:
    """Measure the newest version's evaluation model and the baselines; None where nothing can be measured.

    That is so without a version, or without a conversion in the version's newest window.
    """
    from ml.evaluation.advertiser_report import compare_advertisers, measure_advertisers
    from ml.evaluation.model_names import AdvertiserModelName
    from ml.evaluation.report_rows import TRAINED_EXAMPLES, Protocol, ReportRow
    from ml.examples.advertiser_period import AdvertiserPeriod
    from ml.figures.charts import diversity_scatter, recall_curve, recall_interval_bars, segment_bars

    known = advertiser_versions(workspace.tables, workspace.home).all()
    if not known:
        return None
    version, effective = known[-1], workspace.settings
    period = training_period(workspace, version.trained_day)
    whole = AdvertiserPeriod.of(period)
    comparison = compare_advertisers(whole, version.directory, effective)
    evaluation, queries = effective.evaluation, comparison.queries
    if not len(queries):
        clear_report(workspace, "advertiser_recall")
        return None
    figures = measure_advertisers(
        comparison,
        period.event_names,
        evaluation.ks,
        samples=evaluation.bootstrap_samples,
        seed=effective.training.seed,
    )
    size, trained = len(queries.index), comparison.trained_examples
    subtitle = f"Conversions of the {period.rule.window_days:g} days up to {version.trained_day}; {size:,} advertisers"
    metrics, first_k = figures.metrics, min(figures.intervals[AdvertiserModelName.advertiser_model])
    drawn = {
        "curve": recall_curve({name: each.recall for name, each in metrics.items()}, subtitle),
        "intervals": recall_interval_bars({name: each[first_k] for name, each in figures.intervals.items()}, first_k),
        "by_conversion": segment_bars(figures.by_conversion, "Conversion type", figures.segment_k),
        "by_novelty": segment_bars(figures.by_novelty, "Advertiser of the user's history", figures.segment_k),
        "diversity": diversity_scatter(
            {name: (each.diversity90, each.recall[first_k]) for name, each in metrics.items()}, first_k
        ),
    }
    report = Report(
        "advertiser_recall",
        Protocol.advertiser,
        [*figures.rows(), ReportRow(AdvertiserModelName.advertiser_model, TRAINED_EXAMPLES, trained)],
        drawn,
        headline=metrics[AdvertiserModelName.advertiser_model].figures(),
        parameters={"index": size, "known_advertisers": comparison.known_advertisers},
    )
    return AdvertiserReport(
        kept=store_report(workspace, version, period, report=report, tags=tags),
        drawn=drawn,
        index=size,
        known=comparison.known_advertisers,
        users=len(queries),
        positives=len(queries.positives.items),
        unknown_positives=int((queries.positives.items < 0).sum()),
    )

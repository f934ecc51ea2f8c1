"""The context report's work: every model with and without the live context, beside an item or for a query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison, newest_comparison
from assets.steps.contextual_answers import contextual_answers
from assets.steps.history_page import page
from assets.steps.store_report import Report, StoredReport, clear_report, store_report
from warehouse.world import TrueRelevance, is_world

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ml.evaluation.answers_by_surface import Relevance, SurfaceRequests
    from ml.evaluation.intervals import Interval
    from ml.evaluation.report_rows import ReportRow
    from ml.figures.charts import ContextLift


@dataclass(frozen=True)
class ContextReport:
    """The figures, and the content of the asset's page."""

    kept: StoredReport
    bars: Figure
    requests: int
    source: str
    lifts: Mapping[str, float]  # by surface: recall with the context over that without it


def report_context(workspace: Workspace, tags: Mapping[str, str]) -> ContextReport | None:
    """Store recall and relevance with and without the live context; None without contextual requests."""
    from ml.evaluation.answers_by_surface import by_surface
    from ml.evaluation.report_rows import Protocol
    from ml.figures.charts import context_bars

    compared = newest_comparison(workspace)
    answers = contextual_answers(workspace, compared)
    if answers is None:
        clear_report(workspace, "context")
        return None
    evaluation = answers.evaluation
    relevance = _relevance(workspace, compared)
    asked = by_surface(evaluation, answers.lists)
    surfaces = [_measured(workspace, compared, requests, relevance=relevance) for requests in asked]
    requests = len(evaluation.requests)
    caption = f"{requests} requests, {evaluation.source}"
    if evaluation.hides:
        caption += "; only items that could be shown"
    bars = context_bars({each.surface: each.pair for each in surfaces}, surfaces[0].k, caption)
    lifts = {each.surface: each.lift.estimate for each in surfaces}
    report = Report(
        "context",
        Protocol.context,
        [row for each in surfaces for row in each.rows],
        {"context": bars, **{f"recall_on_{each.surface}": each.drawn() for each in surfaces}},
        headline={f"{each.surface}.lift@{each.k}": each.lift.estimate for each in surfaces},
        parameters={"source": evaluation.source, "requests": requests, "relevance": relevance.name},
        texts={"qualitative.html": page(compared.comparison, evaluation, answers.lists, compared.period.items)},
    )
    kept = store_report(workspace, compared.version, compared.period, report=report, tags=tags)
    return ContextReport(kept, bars, requests, evaluation.source, lifts)


@dataclass(frozen=True)
class _NamedRelevance:
    """A measure of relevance, and the name of its figures."""

    name: str
    of_pairs: Relevance


def _relevance(workspace: Workspace, compared: VersionComparison) -> _NamedRelevance:
    """Return the world's truth, which no model reads; on any other log the shared part of the category path."""
    from ml.evaluation.answers_by_surface import category_overlap

    landing, period = workspace.landing.root, compared.period
    if not is_world(landing):
        return _NamedRelevance("category_overlap", category_overlap(period.items))
    ids = compared.comparison.asked.dataset.features.item_ids
    truth = TrueRelevance.of(landing, compared.version.trained_day)

    def of_pairs(subject: NDArray[np.int64], candidate: NDArray[np.int64]) -> NDArray[np.float64]:
        return truth.of_pairs(ids.gather(subject), ids.gather(candidate))

    return _NamedRelevance("true_relevance", of_pairs)


@dataclass(frozen=True)
class _Measured:
    """The figures of one surface."""

    surface: str
    rows: list[ReportRow]
    k: int  # of the lift
    lift: Interval
    pair: ContextLift

    def drawn(self) -> Figure:
        from ml.evaluation.recall_rows import intervals_of
        from ml.figures.charts import recall_interval_bars

        return recall_interval_bars(intervals_of(self.rows, f"recall@{self.k}"), self.k, self.surface)


def _measured(
    workspace: Workspace, compared: VersionComparison, requests: SurfaceRequests, *, relevance: _NamedRelevance
) -> _Measured:
    from ml.evaluation.answers_by_surface import median_relevance
    from ml.evaluation.intervals import paired_ratio
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.recall_rows import bounded_recalls, differences
    from ml.evaluation.report_rows import ReportRow, Segment, rows_of, with_bounds
    from ml.figures.charts import ContextLift

    settings, positives = workspace.settings, requests.asked.queries.positives
    samples, seed = settings.evaluation.bootstrap_samples, settings.training.seed
    surface, users = requests.surface, requests.users
    figures = requests.measure(compared.comparison.advertisers, compared.comparison.asked.categories)
    name = f"{relevance.name}@10"
    relevances = {
        model: median_relevance(ranked, requests.asked, relevance.of_pairs) for model, ranked in requests.lists.items()
    }
    rows = [
        row
        for model, metrics in figures.items()
        for row in rows_of(model, {**metrics.figures(), name: relevances[model]}, Segment.surface, surface)
    ]
    with_context, withheld = ModelName.contextual, ModelName.contextual_without_context
    ks, lists = sorted(figures[with_context].recall), requests.lists
    k = ks[0]
    bounded = bounded_recalls(lists, positives, ks=ks, samples=samples, seed=seed, owners=users, surface=surface)
    leads = differences(
        with_context, lists, positives, ks=ks, samples=samples, seed=seed, owners=users, surface=surface
    )
    lift = paired_ratio(lists[with_context], lists[withheld], positives, k=k, owners=users, samples=samples, seed=seed)
    return _Measured(
        surface=surface,
        rows=[
            *with_bounds(rows, bounded),
            *_funnels(workspace, requests),
            ReportRow.of(with_context, f"lift@{k}", lift, segment=Segment.surface, group=surface),
            *leads,
        ],
        k=k,
        lift=lift,
        pair=ContextLift(
            figures[withheld].recall[k], figures[with_context].recall[k], relevances[withheld], relevances[with_context]
        ),
    )


def _funnels(workspace: Workspace, requests: SurfaceRequests) -> list[ReportRow]:
    """Return how many times the oracle has led each request through the funnel, where there is an oracle."""
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.report_rows import FUNNELS, ReportRow, Segment

    if ModelName.oracle not in requests.lists:
        return []
    times = workspace.settings.evaluation.oracle_funnels
    return [ReportRow(ModelName.oracle, FUNNELS, times, segment=Segment.surface, group=requests.surface)]

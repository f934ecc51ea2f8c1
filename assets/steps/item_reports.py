"""The reports' work: read the stored lists, measure, draw, log to MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.period import training_day, training_period
from assets.steps.versions import ModelVersion, item_versions
from assets.steps.without_items import require_items
from settings import Settings
from warehouse.as_of import users_as_of
from warehouse.contracts import SCHEMAS, LandingTable
from warehouse.identity import external_ids
from warehouse.tables import Tables
from warehouse.world import is_world, oracle_ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.item_report import Comparison
    from ml.evaluation.metrics import Metrics
    from ml.evaluation.model_lists import ModelName
    from ml.examples.period import TrainingPeriod
    from ml.retrieval.lists import RankedLists
    from ml.versions.tracking import Tracking

FUTURES = 40
HEADLINE_KS = (10, 50, 100)


def newest_version(workspace: Workspace) -> "tuple[ModelVersion, TrainingPeriod, Comparison]":
    """The newest trained version, the period it learnt from, and its comparison models on the newest window.

    Raises:
        NothingToLearn: the training had no item to learn.
        dagster.Failure: nothing has been trained.
    """
    from ml.evaluation.item_report import load_comparison

    known = item_versions(workspace.tables, workspace.home).all()
    if not known:
        require_items(workspace.tables, training_day(workspace.tables))
        raise dg.Failure("there is no trained version: materialize `item_model` first", allow_retries=False)
    version, effective = known[-1], workspace.settings
    period = training_period(workspace.tables, workspace.landing, version.trained_day, effective)
    return version, period, load_comparison(period, version.directory, effective)


def evaluation_lists_of(workspace: Workspace, comparison: "Comparison") -> pl.DataFrame:
    """Return the lists of every model, as deep as the deepest K asked for or the whole catalogue."""
    from ml.evaluation.item_report import comparison_lists, lists_to_frame

    depth = min(max(100, *workspace.settings.evaluation.ks), len(comparison.item_ids))
    return lists_to_frame(comparison_lists(comparison, workspace.settings, depth), comparison.user_ids)


def oracle_lists(
    workspace: Workspace, version: ModelVersion, period: "TrainingPeriod", comparison: "Comparison"
) -> pl.DataFrame:
    """The oracle's lists (user_id, items: candidate rows) for a sample of the users; empty where there is no oracle."""
    schema = {"user_id": pl.String(), "items": pl.List(pl.Int32())}
    window = period.rule.window_days
    if not is_world(workspace.landing.root) or window != int(window):
        return pl.DataFrame(schema=schema)
    users = comparison.user_ids
    if len(users) > workspace.settings.evaluation.oracle_users:
        users = users.sample(workspace.settings.evaluation.oracle_users, seed=workspace.settings.training.seed).sort()
    external = external_ids(workspace.tables, users)
    ranking = oracle_ranking(
        workspace.landing.root,
        version.trained_day - timedelta(days=int(window)),
        external.to_list(),
        item_ids=comparison.item_ids.to_list(),
        window_days=window,
        futures=FUTURES,
        depth=min(max(100, *workspace.settings.evaluation.ks), len(comparison.item_ids)),
    )
    rows = pl.DataFrame({"item_id": comparison.item_ids}).with_row_index("row")
    key_of = dict(zip(external, users, strict=True))
    return (
        ranking.with_columns(pl.col("user_id").replace_strict(key_of))
        .join(rows, on="item_id", how="left")
        .sort("user_id", "rank")
        .group_by("user_id", maintain_order=True)
        .agg(items=pl.col("row").cast(pl.Int32))
    )


@dataclass(frozen=True)
class Table:
    """Figures of a report, long: model, metric, value."""

    table: pl.DataFrame
    url: str

    def at(self, k: int) -> dict[str, float]:
        """Recall@k by model."""
        return dict(self.table.filter(metric=f"recall@{k}").select("model", "value").rows())

    def wide(self) -> pl.DataFrame:
        """One row a model."""
        return self.table.pivot("metric", index="model", values="value", maintain_order=True)


@dataclass(frozen=True)
class RecallResult(Table):
    """The recall report."""

    k: int  # of the intervals
    curve: "Figure"
    intervals: "Figure"


@dataclass(frozen=True)
class DiversityResult(Table):
    """The diversity report."""

    scatter: "Figure"


@dataclass(frozen=True)
class ContextOutcome(Table):
    """The context report."""

    bars: "Figure"
    requests: int
    source: str
    k: int  # of the lift
    lift: float  # recall at k with the context over that without it


@dataclass(frozen=True)
class Report:
    """The comparison with its stored lists."""

    workspace: Workspace
    effective: Settings
    version: ModelVersion
    period: "TrainingPeriod"
    comparison: "Comparison"
    lists: "Mapping[ModelName, RankedLists]"
    oracle: "tuple[Comparison, RankedLists] | None"
    tracking: "Tracking"
    tags: dict[str, str]

    def recall(self) -> RecallResult:
        """Recall@K of every model: one MLflow run a model under one of the report."""
        import mlflow

        from ml.evaluation.metrics import confidence_interval
        from ml.figures.charts import recall_curve, recall_interval_bars
        from ml.versions.tracking import REPORTS, log_figures

        positives, evaluation = self.comparison.asked.queries.positives, self.effective.evaluation
        measured = self._measured()
        intervals = {
            model.value: confidence_interval(
                lists, positives, self._k, samples=evaluation.bootstrap_samples, seed=self.effective.training.seed
            )
            for model, lists in self.lists.items()
        }
        rows = [
            (model, f"{name}@{k}", value)
            for model, metrics in measured.items()
            for name, by_k in (
                ("recall", metrics.recall),
                ("macro_recall", metrics.macro_recall),
                ("advertiser_hit", metrics.advertiser_hit),
            )
            for k, value in by_k.items()
        ]
        rows += [(model, f"recall@{self._k} low", each.low) for model, each in intervals.items()]
        rows += [(model, f"recall@{self._k} high", each.high) for model, each in intervals.items()]
        curve = recall_curve({model: metrics.recall for model, metrics in measured.items()}, self._window())
        bars = recall_interval_bars(intervals, self._k)
        with self.tracking.run(REPORTS, f"recall_report {self.version.trained_day}", self._tags()) as run:
            self._log_parameters()
            log_figures({"recall_by_k": curve, "recall_with_intervals": bars, **self._segment_figures()})
            mlflow.log_metrics(measured["contextual"].flat())
            for model, metrics in measured.items():
                with self.tracking.run(REPORTS, model, {"model": model}, nested=True):
                    figures = metrics.flat()
                    counts = {name: figures.pop(name) for name in ("queries", "positives")}
                    mlflow.log_params({"model": model, **counts})  # the same for all: nothing to compare by
                    mlflow.log_metrics(figures)
        return RecallResult(_table(rows), self.tracking.url(run), self._k, curve, bars)

    def diversity(self) -> DiversityResult:
        """Diversity against recall."""
        import mlflow

        from ml.figures.charts import diversity_scatter
        from ml.versions.tracking import REPORTS, log_figures

        measured = self._measured()
        rows: list[tuple[str, str, float | None]] = []
        for model, metrics in measured.items():
            rows += [
                (model, "diversity90", metrics.diversity90),
                (model, "advertiser_diversity90", metrics.advertiser_diversity90),
                (model, "coverage@10", metrics.coverage_at_10),
                (model, "novelty", metrics.novelty),
                (model, "never_engaged@100", metrics.never_engaged),
                (model, f"recall@{self._k}", metrics.recall[self._k]),
            ]
        points = {model: (metrics.diversity90, metrics.recall[self._k]) for model, metrics in measured.items()}
        scatter = diversity_scatter(points, self._k)
        with self.tracking.run(REPORTS, f"diversity_report {self.version.trained_day}", self._tags()) as run:
            self._log_parameters()
            log_figures({"diversity_against_recall": scatter})
            for model, metrics in measured.items():
                figures = metrics.flat()
                names = [name for name in ("diversity90", "advertiser_diversity90", "never_engaged") if name in figures]
                mlflow.log_metrics({f"{model}_{name}": figures[name] for name in names})
        return DiversityResult(_table(rows), self.tracking.url(run), scatter)

    def context(self) -> ContextOutcome | None:
        """Recall and relevance with and without the live context; None without contextual requests."""
        import mlflow

        from ml.evaluation.item_report import context_evaluation, context_results
        from ml.figures.charts import ContextLift, context_bars
        from ml.versions.tracking import REPORTS, log_figures

        impressions = read_impressions(self.workspace.tables, self.version.trained_day)
        seed, maximum = self.effective.training.seed, self.effective.evaluation.maximum_users
        evaluation = context_evaluation(self.comparison, self.period, impressions, maximum=maximum, seed=seed)
        if evaluation is None:
            return None
        results = context_results(self.comparison, evaluation, self.effective, self.period.items)
        by_name = {result.name: result for result in results}
        rows = [
            (result.name, metric, value)
            for result in results
            for metric, value in (
                *((f"recall@{k}", value) for k, value in result.metrics.recall.items()),
                ("diversity90", result.metrics.diversity90),
                ("relevance@10", result.relevance),
            )
        ]
        with_context, withheld = by_name["contextual"], by_name["contextual, context withheld"]
        k = min(with_context.metrics.recall)
        lift = with_context.metrics.recall[k] / max(withheld.metrics.recall[k], 1e-9)
        subtitle = f"{len(evaluation.requests)} requests, {evaluation.source}"
        pair = ContextLift(
            withheld.metrics.recall[k], with_context.metrics.recall[k], withheld.relevance, with_context.relevance
        )
        bars = context_bars({"contextual": pair}, k, subtitle)
        with self.tracking.run(REPORTS, f"context_report {self.version.trained_day}", self._tags()) as run:
            self._log_parameters()
            mlflow.log_params({"source": evaluation.source, "requests": len(evaluation.requests)})
            mlflow.log_metrics(
                {f"lift_at_{k}": lift, "relevance_lift": _ratio(pair.relevance_with, pair.relevance_without)}
            )
            log_figures({"context": bars})
            mlflow.log_text(self._page(evaluation, by_name), "qualitative.html")
            for result in results:
                with self.tracking.run(REPORTS, result.name, {"model": result.name}, nested=True):
                    mlflow.log_metrics({**result.metrics.flat(), "relevance_at_10": result.relevance})
        return ContextOutcome(
            _table(rows), self.tracking.url(run), bars, len(evaluation.requests), evaluation.source, k, lift
        )

    @property
    def _k(self) -> int:
        """100, or the largest of the usual list lengths that says something about a smaller catalogue."""
        from ml.evaluation.metrics import usable_ks

        return max(usable_ks(HEADLINE_KS, len(self.comparison.item_ids)))

    def _measured(self) -> "dict[str, Metrics]":
        from ml.evaluation.item_report import measure

        ks = sorted({*self.effective.evaluation.ks, self._k})
        measured = {model.value: measure(self.comparison, lists, ks) for model, lists in self.lists.items()}
        if self.oracle:
            comparison, lists = self.oracle
            measured["oracle"] = measure(comparison, lists, ks)
        return measured

    def _segment_figures(self) -> "dict[str, Figure]":
        from ml.evaluation.item_report import country_segments, history_segments, positive_name_segments
        from ml.evaluation.metrics import recall_by_positive_segment, recall_by_segment
        from ml.figures.charts import segment_bars

        positives = self.comparison.asked.queries.positives
        histories = history_segments(self.comparison)
        countries = country_segments(self.comparison, users_as_of(self.workspace.tables, self.version.trained_day))
        types = positive_name_segments(self.comparison, self.period.event_names)

        def by_query(segment: pl.Series, title: str) -> "Figure":
            frames = {
                model.value: recall_by_segment(lists, positives, segment, self._k)
                for model, lists in self.lists.items()
            }
            return segment_bars(frames, title, self._k)

        by_type = {
            model.value: recall_by_positive_segment(lists, positives, types, self._k)
            for model, lists in self.lists.items()
        }
        figures = {
            "recall_by_history_length": by_query(histories, "History length (events)"),
            "recall_by_conversion_type": segment_bars(by_type, "Conversion type", self._k),
        }
        if countries.is_not_null().any():
            figures["recall_by_country"] = by_query(countries, "Country")
        return figures

    def _page(self, evaluation: object, by_name: Mapping[str, object]) -> str:
        from assets.steps.history_page import page

        return page(self.comparison, evaluation, by_name, self.period.items)  # type: ignore[arg-type]

    def _window(self) -> str:
        return f"Conversions of the {self.period.rule.window_days:g} days up to {self.version.trained_day}"

    def _log_parameters(self) -> None:
        import mlflow

        from ml.versions.work_directory import dataset_hash

        mlflow.log_params(self.effective.flat())
        mlflow.set_tag("dataset_hash", dataset_hash(self.period))

    def _tags(self) -> dict[str, str]:
        return {**self.tags, "model_version": self.version.name, "training_run_id": self.version.run_id}


def open_report(workspace: Workspace, tags: dict[str, str]) -> Report:
    """The newest version's comparison with the lists that ``evaluation_lists`` stored."""
    from ml.evaluation.item_report import lists_of_frame, narrowed
    from ml.retrieval.lists import RankedLists

    version, period, comparison = newest_version(workspace)
    where = {"model_version": version.name}
    lists = lists_of_frame(workspace.tables.read("evaluation_lists", where), comparison.user_ids)
    found = workspace.tables.read("oracle_lists", where)
    oracle = None
    if len(found):
        queries = np.flatnonzero(comparison.user_ids.is_in(found["user_id"].implode()).to_numpy())
        ranked = found.sort("user_id")["items"].to_list()
        oracle = narrowed(comparison, queries), RankedLists.from_rows(ranked, max(len(row) for row in ranked))
    return Report(workspace, workspace.settings, version, period, comparison, lists, oracle, workspace.tracking, tags)


def read_impressions(tables: Tables, day: date) -> pl.DataFrame:
    """Impressions that had arrived by ``day``."""
    if not tables.exists("impressions"):
        return pl.DataFrame(schema=pl.Schema(SCHEMAS[LandingTable.impressions]))
    return tables.scan("impressions").filter(pl.col("arrival_date") <= day).collect()


def write_metrics(workspace: Workspace, report: str, table: pl.DataFrame) -> None:
    """Keep a report's figures in ``model_metrics``, from which the closing table is printed."""
    workspace.tables.write("model_metrics", table, {"report": report})


def write_champion_metrics(workspace: Workspace, report: str, table: pl.DataFrame) -> None:
    """Keep the figures of a report on the newest version, unless the gate has refused the version.

    The closing table then still shows the champion; the figures of the refused version are in MLflow.
    """
    if item_versions(workspace.tables, workspace.home).all()[-1].name == workspace.tracking.champion():
        write_metrics(workspace, report, table)


def _table(rows: list[tuple[str, str, float]] | list[tuple[str, str, float | None]]) -> pl.DataFrame:
    schema = {"model": pl.String(), "metric": pl.String(), "value": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")

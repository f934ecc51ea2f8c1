"""The reports' work: read the stored lists, measure, draw, log to MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from assets.deployment import ModelVersion, serving, versions
from assets.encoding import embedded_as_of, encode_day, missing_days, read_item_embeddings, snapshot_embeddings
from assets.period import EVENT_COLUMNS, label_rule, training_period
from assets.resources import SettingsResource
from assets.tracking import tracking_of
from settings import Settings
from warehouse.catalogue import events_as_of, items_as_of, users_as_of
from warehouse.contracts import SCHEMAS, UNKNOWN_ADVERTISER, LandingTable
from warehouse.ingest import day_end
from warehouse.tables import Tables
from warehouse.world import is_world, oracle_ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.comparison import ModelName
    from ml.learning import TrainingPeriod
    from ml.metrics import Metrics
    from ml.reporting import Comparison
    from ml.retrieval import RankedLists
    from ml.tracking import Tracking

FUTURES = 40


def newest_version(settings: SettingsResource) -> "tuple[ModelVersion, TrainingPeriod, Comparison]":
    """The newest trained version, the period it learnt from, and its comparison models on the newest window.

    Raises:
        dagster.Failure: nothing has been trained.
    """
    from ml.reporting import load_comparison

    known = versions(settings.tables, settings.home)
    if not known:
        raise dg.Failure("there is no trained version: materialize `item_model` first", allow_retries=False)
    version, effective = known[-1], settings.value()
    period = training_period(settings.tables, settings.landing, version.trained_day, effective)
    return version, period, load_comparison(period, version.directory, effective, UNKNOWN_ADVERTISER)


def evaluation_lists_of(settings: SettingsResource, comparison: "Comparison") -> pl.DataFrame:
    """Lists of every model, as deep as the deepest K asked for."""
    from ml.reporting import comparison_lists, lists_to_frame

    depth = min(max(100, *settings.evaluation.ks), len(comparison.item_ids))
    return lists_to_frame(comparison_lists(comparison, settings.value(), depth), comparison.user_ids)


def oracle_lists(
    settings: SettingsResource, version: ModelVersion, period: "TrainingPeriod", comparison: "Comparison"
) -> pl.DataFrame:
    """The oracle's lists (user_id, items: candidate rows) for a sample of the users; empty where there is no oracle."""
    schema = {"user_id": pl.String(), "items": pl.List(pl.Int32())}
    window = period.rule.window_days
    if not is_world(settings.landing.root) or window != int(window):
        return pl.DataFrame(schema=schema)
    users = comparison.user_ids
    if len(users) > settings.evaluation.oracle_users:
        users = users.sample(settings.evaluation.oracle_users, seed=settings.training.seed).sort()
    ranking = oracle_ranking(
        settings.landing.root,
        version.trained_day - timedelta(days=int(window)),
        users.to_list(),
        comparison.item_ids.to_list(),
        window,
        FUTURES,
        min(max(100, *settings.evaluation.ks), len(comparison.item_ids)),
    )
    rows = pl.DataFrame({"item_id": comparison.item_ids}).with_row_index("row")
    return (
        ranking.join(rows, on="item_id", how="left")
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
    lift: float


@dataclass(frozen=True)
class Report:
    """The comparison with its stored lists."""

    settings: SettingsResource
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

        from ml.figures import recall_curve, recall_interval_bars
        from ml.metrics import confidence_interval
        from ml.tracking import REPORTS, log_figures

        positives, evaluation = self.comparison.asked.queries.positives, self.effective.evaluation
        measured = self._measured()
        intervals = {
            model.value: confidence_interval(
                lists, positives, 100, evaluation.bootstrap_samples, self.effective.training.seed
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
        rows += [(model, "recall@100 low", each.low) for model, each in intervals.items()]
        rows += [(model, "recall@100 high", each.high) for model, each in intervals.items()]
        curve = recall_curve({model: metrics.recall for model, metrics in measured.items()}, self._window())
        bars = recall_interval_bars(intervals, 100)
        with self.tracking.run(REPORTS, f"recall_report {self.version.trained_day}", self._tags()) as run:
            self._log_parameters()
            log_figures({"recall_by_k": curve, "recall_with_intervals": bars, **self._segment_figures()})
            for model, metrics in measured.items():
                with self.tracking.run(REPORTS, model, {"model": model}, nested=True):
                    mlflow.log_metrics(metrics.flat())
        return RecallResult(_table(rows), self.tracking.url(run), curve, bars)

    def diversity(self) -> DiversityResult:
        """Diversity against recall."""
        import mlflow

        from ml.figures import diversity_scatter
        from ml.tracking import REPORTS, log_figures

        measured = self._measured()
        rows: list[tuple[str, str, float | None]] = []
        for model, metrics in measured.items():
            rows += [
                (model, "diversity90", metrics.diversity90),
                (model, "advertiser_diversity90", metrics.advertiser_diversity90),
                (model, "coverage@10", metrics.coverage_at_10),
                (model, "novelty", metrics.novelty),
                (model, "recall@100", metrics.recall[100]),
            ]
        points = {model: (metrics.diversity90, metrics.recall[100]) for model, metrics in measured.items()}
        scatter = diversity_scatter(points)
        with self.tracking.run(REPORTS, f"diversity_report {self.version.trained_day}", self._tags()) as run:
            self._log_parameters()
            log_figures({"diversity_against_recall": scatter})
            mlflow.log_metrics({f"{model}_diversity90": metrics.diversity90 for model, metrics in measured.items()})
        return DiversityResult(_table(rows), self.tracking.url(run), scatter)

    def context(self) -> ContextOutcome | None:
        """Recall and relevance with and without the live context; None without contextual requests."""
        import mlflow

        from ml.figures import ContextLift, context_bars
        from ml.reporting import context_evaluation, context_results
        from ml.tracking import REPORTS, log_figures

        impressions = read_impressions(self.settings.tables, self.version.trained_day)
        seed, maximum = self.effective.training.seed, self.effective.evaluation.maximum_users
        evaluation = context_evaluation(self.comparison, self.period, impressions, maximum, seed)
        if evaluation is None:
            return None
        results = context_results(self.comparison, evaluation, self.effective, self.period.items)
        by_name = {result.name: result for result in results}
        rows = [
            (result.name, metric, value)
            for result in results
            for metric, value in (
                ("recall@10", result.metrics.recall[10]),
                ("recall@100", result.metrics.recall[100]),
                ("diversity90", result.metrics.diversity90),
                ("relevance@10", result.relevance),
            )
        ]
        with_context, withheld = by_name["contextual"], by_name["contextual, context withheld"]
        lift = with_context.metrics.recall[10] / max(withheld.metrics.recall[10], 1e-9)
        subtitle = f"{len(evaluation.requests)} requests, {evaluation.source}"
        pair = ContextLift(
            withheld.metrics.recall[10], with_context.metrics.recall[10], withheld.relevance, with_context.relevance
        )
        bars = context_bars({"contextual": pair}, 10, subtitle)
        with self.tracking.run(REPORTS, f"context_report {self.version.trained_day}", self._tags()) as run:
            self._log_parameters()
            mlflow.log_params({"source": evaluation.source, "requests": len(evaluation.requests)})
            mlflow.log_metrics(
                {"lift_at_10": lift, "relevance_lift": _ratio(pair.relevance_with, pair.relevance_without)}
            )
            log_figures({"context": bars})
            mlflow.log_text(self._page(evaluation, by_name), "qualitative.html")
            for result in results:
                with self.tracking.run(REPORTS, result.name, {"model": result.name}, nested=True):
                    mlflow.log_metrics({**result.metrics.flat(), "relevance_at_10": result.relevance})
        return ContextOutcome(
            _table(rows), self.tracking.url(run), bars, len(evaluation.requests), evaluation.source, lift
        )

    def _measured(self) -> "dict[str, Metrics]":
        from ml.reporting import measure

        ks = self.effective.evaluation.ks
        measured = {model.value: measure(self.comparison, lists, ks) for model, lists in self.lists.items()}
        if self.oracle:
            comparison, lists = self.oracle
            measured["oracle"] = measure(comparison, lists, ks)
        return measured

    def _segment_figures(self) -> "dict[str, Figure]":
        from ml.figures import segment_bars
        from ml.metrics import recall_by_positive_segment, recall_by_segment
        from ml.reporting import country_segments, history_segments, positive_name_segments

        positives = self.comparison.asked.queries.positives
        histories = history_segments(self.comparison)
        countries = country_segments(self.comparison, users_as_of(self.settings.tables, self.version.trained_day))
        types = positive_name_segments(self.comparison, self.period.event_names)

        def by_query(segment: pl.Series, title: str) -> "Figure":
            frames = {
                model.value: recall_by_segment(lists, positives, segment, 100) for model, lists in self.lists.items()
            }
            return segment_bars(frames, title, 100)

        by_type = {
            model.value: recall_by_positive_segment(lists, positives, types, 100) for model, lists in self.lists.items()
        }
        figures = {
            "recall_by_history_length": by_query(histories, "History length (events)"),
            "recall_by_conversion_type": segment_bars(by_type, "Conversion type", 100),
        }
        if countries.is_not_null().any():
            figures["recall_by_country"] = by_query(countries, "Country")
        return figures

    def _page(self, evaluation: object, by_name: Mapping[str, object]) -> str:
        from assets.qualitative import page

        return page(self.comparison, evaluation, by_name, self.period.items)  # type: ignore[arg-type]

    def _window(self) -> str:
        return f"Conversions of the {self.period.rule.window_days:g} days up to {self.version.trained_day}"

    def _log_parameters(self) -> None:
        import mlflow

        from ml.versioning import dataset_hash

        mlflow.log_params(self.effective.flat())
        mlflow.set_tag("dataset_hash", dataset_hash(self.period))

    def _tags(self) -> dict[str, str]:
        return {**self.tags, "model_version": self.version.name, "training_run_id": self.version.run_id}


def open_report(settings: SettingsResource, tags: dict[str, str]) -> Report:
    """The newest version's comparison with the lists that ``evaluation_lists`` stored."""
    from ml.reporting import lists_of_frame, narrowed
    from ml.retrieval import RankedLists

    version, period, comparison = newest_version(settings)
    where = {"model_version": version.name}
    lists = lists_of_frame(settings.tables.read("evaluation_lists", where), comparison.user_ids)
    found = settings.tables.read("oracle_lists", where)
    oracle = None
    if len(found):
        queries = np.flatnonzero(comparison.user_ids.is_in(found["user_id"].implode()).to_numpy())
        ranked = found.sort("user_id")["items"].to_list()
        oracle = narrowed(comparison, queries), RankedLists.from_rows(ranked, max(len(row) for row in ranked))
    return Report(settings, settings.value(), version, period, comparison, lists, oracle, tracking_of(settings), tags)


def read_impressions(tables: Tables, day: date) -> pl.DataFrame:
    """Impressions that had arrived by ``day``."""
    if not tables.exists("impressions"):
        return pl.DataFrame(schema=pl.Schema(SCHEMAS[LandingTable.impressions]))
    return tables.scan("impressions").filter(pl.col("arrival_date") <= day).collect()


def write_metrics(settings: SettingsResource, report: str, table: pl.DataFrame) -> None:
    """Keep a report's figures in ``model_metrics``, from which the closing table is printed."""
    settings.tables.write("model_metrics", table, {"report": report})


@dataclass(frozen=True)
class Prequential:
    """A day's conversions against what had been prepared the day before."""

    table: pl.DataFrame  # model, users, positives, metric, value
    users: int
    positives: int
    headline: dict[str, float]
    served_by: str
    curve: "Figure"
    url: str | None


def prequential(settings: SettingsResource, day: date, tags: dict[str, str]) -> Prequential:
    """Measure the snapshot and item embeddings of the day before against the positives that happened in ``day``."""
    from ml.figures import daily_recall_curve
    from ml.prequential import measure_day
    from ml.tracking import DAILY

    tables, landing, before = settings.tables, settings.landing, day - timedelta(days=1)
    tracking = tracking_of(settings)
    version = serving(tables, settings.home, before, tracking.champion())
    zone = landing.manifest.time_zone
    log = events_as_of(tables, landing, day, EVENT_COLUMNS)
    for earlier in missing_days(tables, version, day):  # a day that runs before the one before it
        encode_day(settings, version, earlier)
    item_ids, embeddings = read_item_embeddings(tables, version, embedded_as_of(settings, version, before))
    users, user_embeddings = snapshot_embeddings(settings, version, before, users=_active(log, day_end(before, zone)))
    rows = measure_day(
        log=log,
        start=day_end(before, zone),
        rule=label_rule(landing, settings.value()),
        users=users,
        user_embeddings=user_embeddings,
        item_ids=item_ids,
        item_embeddings=embeddings,
        items=items_as_of(tables, landing, before),
        ks=settings.evaluation.ks,
    )
    curve = daily_recall_curve(*_curve(tables, day, rows))
    headline = dict(rows.filter(model="contextual").drop_nulls("value").select("metric", "value").rows())
    url = None
    if headline:
        import mlflow

        from ml.tracking import log_figures

        tracking.replace_run(DAILY, "day", str(day))
        with tracking.run(DAILY, f"daily_recall {day}", {**tags, "day": str(day)}) as run:
            mlflow.log_params({"day": str(day), "served_by": version.name, **settings.value().flat()})
            for model, metric, value in rows.drop_nulls("value").select("model", "metric", "value").rows():
                mlflow.log_metric(f"{model}_{metric.replace('@', '_at_')}", value, step=day.toordinal())
            log_figures({"recall_by_day": curve})
        url = tracking.url(run)
    first = rows.row(0, named=True)
    return Prequential(rows, first["users"], first["positives"], headline, version.name, curve, url)


def _active(log: pl.DataFrame, start: datetime) -> pl.Series:
    return log.filter(pl.col("event_time") >= start)["user_id"].unique().sort()


def _curve(tables: Tables, day: date, rows: pl.DataFrame) -> tuple[list[date], dict[str, list[float | None]]]:
    """Recall@100 by day and model up to ``day``, for the figure."""
    today = rows.with_columns(day=pl.lit(day)).filter(metric="recall@100").select("day", "model", "value")
    parts = [today]
    if tables.exists("daily_recall"):
        earlier = tables.scan("daily_recall").filter(pl.col("day") < day, pl.col("metric") == "recall@100")
        parts.insert(0, earlier.select("day", "model", "value").collect())
    wide = pl.concat(parts).pivot("model", index="day", values="value", aggregate_function="first").sort("day").tail(60)
    return wide["day"].to_list(), {name: wide[name].to_list() for name in wide.columns if name != "day"}


def _table(rows: list[tuple[str, str, float]] | list[tuple[str, str, float | None]]) -> pl.DataFrame:
    schema = {"model": pl.String(), "metric": pl.String(), "value": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")

"""The relevance report of a day: the model's measures, the funnel, the gap and the seasons, in MLflow with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.judge_candidates import judging_of
from assets.steps.relevance_metrics import RelevanceReport, metrics_of_day, write_metrics
from assets.steps.relevance_scrape import gap_picture
from assets.steps.relevance_versions import RELEVANCE_MEASURES, relevance_version
from assets.steps.score_candidates import scored_on
from assets.steps.train_relevance import FOLDS
from warehouse.ad_status import runs
from warehouse.as_of import ads_as_of
from warehouse.contracts import CATEGORY_SEPARATOR, STAGES
from warehouse.days import day_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.report_rows import ReportRow

RELEVANCE_WEEKS = "relevance_weeks"
WEEKS = pl.Schema({"week": pl.Date(), "category": pl.String(), "fraction": pl.Float64(), "inventory": pl.Int64()})
"""Columns of the table, a partition a day: the week of the day until then."""
MODEL, FUNNEL = "relevance_model", "funnel"
FRACTION_RELEVANT = "fraction_relevant"
SAMPLES = 200
SEASON_DAYS = timedelta(weeks=52)


@dataclass(frozen=True)
class ReportedRelevance:
    """The report of a day.

    Attributes:
        figures: every figure of relevance of the day, model, metric, value, low, high, segment, group.
        pictures: by the name of their file. url: of the MLflow run.
    """

    figures: pl.DataFrame
    pictures: dict[str, Figure]
    url: str


def report_relevance(workspace: Workspace, day: date, tags: Mapping[str, str]) -> ReportedRelevance:
    """Measure, draw and log the relevance of a day, with what the other reports of the day have found."""
    import mlflow

    from ml.evaluation.metrics import mlflow_metrics
    from ml.evaluation.report_rows import Protocol, figures_by_model, rows_frame
    from ml.figures.relevance_charts import calibration_curves, funnel_chart, seasons_chart
    from ml.versions.tracking import RELEVANCE, log_figures

    fractions = funnel_of(workspace, day)
    write_metrics(workspace, day, RelevanceReport.funnel, _funnel_rows(fractions))
    measures, in_use = measured_models(workspace, day)
    write_metrics(workspace, day, RelevanceReport.model, model_rows(measures, in_use=in_use))
    pictures = {"gap_to_holdout": gap_picture(workspace, day)}
    if len(fractions):
        pictures |= {
            f"funnel_by_{segment}": funnel_chart(fractions, segment) for segment in ("category", "content_type")
        }
    if len(measures):
        pictures["calibration"] = calibration_curves(_curves(measures, in_use=in_use))
    measure_week(workspace, day)
    weeks = seasons(workspace, day)
    if len(weeks):
        pictures["seasons"] = seasons_chart(weeks)
    rows = metrics_of_day(workspace.tables, day)
    tracking = workspace.tracking
    tracking.replace_run(RELEVANCE, "relevance_day", str(day))
    with tracking.run(RELEVANCE, f"relevance_report {day}", {**tags, "relevance_day": str(day)}) as run:
        mlflow.log_params({"day": str(day), **workspace.settings.flat()})
        for figures in figures_by_model(rows, Protocol.relevance).values():
            mlflow.log_metrics(mlflow_metrics(figures), step=day.toordinal())
        log_figures(pictures)
    return ReportedRelevance(rows_frame(rows), pictures, tracking.url(run))


def funnel_of(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return the fraction relevant through the funnel of the last days."""
    from ml.relevance.candidates import HOLDOUT
    from ml.relevance.funnel_fractions import funnel_fractions

    settings = workspace.settings
    first = day - timedelta(days=settings.relevance.funnel_days - 1)
    scored = scored_on(workspace.tables, first, day).filter(pl.col("arm") != HOLDOUT)
    candidates = scored.drop("day", "source", "relevance_version", "features").collect()
    judged = judging_of(workspace, day)(candidates)
    return funnel_fractions(judged, STAGES, samples=SAMPLES, seed=settings.training.seed)


def _funnel_rows(fractions: pl.DataFrame) -> list[ReportRow]:
    from ml.evaluation.report_rows import ReportRow, Segment

    return [
        ReportRow(FUNNEL, f"{FRACTION_RELEVANT}.{stage}", value, low, high, Segment(segment), group)
        for segment, group, stage, value, low, high in fractions.select(
            "segment", "group", "stage", "fraction", "low", "high"
        ).rows()
    ]


def measured_models(workspace: Workspace, day: date) -> tuple[pl.DataFrame, str]:
    """Return the measures of the newest training of a relevance model by ``day``, and whose measures the figures are.

    The measures are empty before the first training. A model that the gate let in is measured on all labels, by folds;
    where the gate has refused the new one, the figures are those of the ``old`` one on the labels since.
    """
    tables = workspace.tables
    days = [each for each in tables.days(RELEVANCE_MEASURES, "day") if each <= day]
    if not days:
        return pl.DataFrame(), FOLDS
    version = relevance_version(workspace, days[-1])
    passed = version is not None and version.day == days[-1]
    return tables.read(RELEVANCE_MEASURES, {"day": days[-1]}), FOLDS if passed else "old"


def model_rows(measures: pl.DataFrame, *, in_use: str) -> list[ReportRow]:
    """Return the measures of the model that is in use since the training, ``folds`` or ``old``, as rows."""
    from ml.evaluation.report_rows import Segment, rows_of

    if measures.is_empty():
        return []
    rows = []
    for row in measures.filter(model=in_use).iter_rows(named=True):
        segment = {"all": Segment.all, "cell": Segment.cell, "content_type": Segment.content_type}.get(row["segment"])
        if segment is None:
            prefix, group, kind = f"stage.{row['group']}.", "", Segment.all
        else:
            prefix, group, kind = "", "" if segment is Segment.all else row["group"], segment
        figures = {
            "ece": row["calibration_error"],
            "trim_ece": row["trim_error"],
            "ndcg@10": row["ndcg"],
            "ndcg@10_ceiling": row["ndcg_ceiling"],
            "labels": row["labels"],
        }
        if segment is Segment.all:
            figures |= {
                "trim.label1_trimmed": row["irrelevant_trimmed"],
                "trim.label4_trimmed": row["relevant_trimmed"],
            }
        rows += rows_of(MODEL, {f"{prefix}{name}": value for name, value in figures.items()}, kind, group)
    return rows


def _curves(measures: pl.DataFrame, *, in_use: str) -> dict[str, dict[str, pl.DataFrame]]:
    """Return the reliability curves by content type, of the model in use before and of the new one."""
    titles = {"old": "The model before, on the same labels", "new": "The new model"}
    if in_use == "old":
        titles = {"old": "The model in use", "new": "The new model, which the gate has refused"}
    by_type = measures.filter(segment="content_type")
    return {
        title: {
            row["group"]: pl.DataFrame(row["curve"])
            for row in by_type.filter(model=model).sort("group").iter_rows(named=True)
            if row["curve"]
        }
        for model, title in titles.items()
        if by_type.filter(model=model).height
    }


def measure_week(workspace: Workspace, day: date) -> pl.DataFrame:
    """Measure the week of ``day`` until then, and store it: category, fraction relevant and inventory.

    The fraction is of the candidates that were shown, each counted as often as the inverse of its inclusion
    probability; the inventory is the ads that run at the end of ``day``. A day stores its own week alone, so that no
    report reads the candidates of a year.
    """
    from ml.relevance.judgements import PAIR

    week, shown = day - timedelta(days=day.weekday()), STAGES[STAGES.index("impressed") :]
    scored = scored_on(workspace.tables, week, day).filter(pl.col("stage").is_in(shown))
    weight = 1 / pl.col("inclusion_probability").fill_null(1.0)
    pairs = (
        scored.group_by(*PAIR, "category", "trim_score", "relevance")
        .agg(weight=weight.sum())
        .sort(pl.all())
        .collect(engine="streaming")
    )
    measured = WEEKS.to_frame() if pairs.is_empty() else _of_week(workspace, day, pairs).with_columns(week=pl.lit(week))
    workspace.tables.write(RELEVANCE_WEEKS, measured.select(WEEKS.names()).cast(WEEKS), {"day": day})
    return measured


def _of_week(workspace: Workspace, day: date, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return category, fraction and inventory of weighted pairs."""
    judged = judging_of(workspace, day)(pairs).drop_nulls(["relevant", "category"])
    fraction = (pl.col("relevant") * pl.col("weight")).sum() / pl.col("weight").sum()
    return (
        judged.group_by("category")
        .agg(fraction=fraction)
        .join(_inventory(workspace, day), on="category", how="left")
        .with_columns(pl.col("inventory").fill_null(0))
        .sort("category")
    )


def seasons(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return week, category, fraction and inventory of the weeks until ``day``, each as its newest day stored it."""
    stored = workspace.tables.scan(RELEVANCE_WEEKS).filter(pl.col("day") > day - SEASON_DAYS, pl.col("day") <= day)
    newest = pl.col("day") == pl.col("day").max().over("week")
    return stored.filter(newest).drop("day").sort("week", "category").collect()


def _inventory(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return category and inventory: the ads that ran at the end of ``day``, or the items where the log has no ads."""
    items = workspace.items_as_of(day).select(
        "item_id", category=pl.col("category").str.split(CATEGORY_SEPARATOR).list.first()
    )
    ads = ads_as_of(workspace.tables, day)
    if ads is not None:
        instant = day_end(day, workspace.landing.manifest.time_zone)
        begun = pl.col("starts").is_null() | (pl.col("starts") <= instant)
        lasting = pl.col("ends").is_null() | (pl.col("ends") > instant)
        items = ads.filter(begun, lasting, runs(pl.col("status"))).select("item_id").join(items, on="item_id")
    return items.drop_nulls("category").group_by("category").agg(inventory=pl.len().cast(pl.Int64))

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
from assets.steps.score_candidates import SCORED_CANDIDATES
from warehouse.ad_status import runs
from warehouse.as_of import ads_as_of
from warehouse.contracts import CATEGORY_SEPARATOR, STAGES
from warehouse.days import day_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.report_rows import ReportRow

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
    measures = _model_measures(workspace, day)
    write_metrics(workspace, day, RelevanceReport.model, _model_rows(measures))
    pictures = {"gap_to_holdout": gap_picture(workspace, day)}
    if len(fractions):
        pictures |= {
            f"funnel_by_{segment}": funnel_chart(fractions, segment) for segment in ("category", "content_type")
        }
    if len(measures):
        pictures["calibration"] = calibration_curves(_curves(measures))
    weeks = inventory_by_week(workspace, day)
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
    from ml.relevance.funnel_fractions import funnel_fractions

    settings = workspace.settings
    candidates = _candidates(workspace, day, timedelta(days=settings.relevance.funnel_days))
    judged = judging_of(workspace, day)(candidates)
    return funnel_fractions(judged, STAGES, samples=SAMPLES, seed=settings.training.seed)


def _candidates(workspace: Workspace, day: date, last: timedelta) -> pl.DataFrame:
    scored = workspace.tables.scan(SCORED_CANDIDATES).filter(pl.col("day") > day - last, pl.col("day") <= day)
    return scored.drop("features").collect()


def _funnel_rows(fractions: pl.DataFrame) -> list[ReportRow]:
    from ml.evaluation.report_rows import ReportRow, Segment

    return [
        ReportRow(FUNNEL, f"{FRACTION_RELEVANT}.{stage}", value, low, high, Segment(segment), group)
        for segment, group, stage, value, low, high in fractions.select(
            "segment", "group", "stage", "fraction", "low", "high"
        ).rows()
    ]


def _model_measures(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return the measures of the newest training of a relevance model by ``day``; empty before the first."""
    tables = workspace.tables
    days = [each for each in tables.days("relevance_measures", "day") if each <= day]
    return tables.read("relevance_measures", {"day": days[-1]}) if days else pl.DataFrame()


def _model_rows(measures: pl.DataFrame) -> list[ReportRow]:
    """Return the measures of the new model as rows."""
    from ml.evaluation.report_rows import Segment, rows_of

    if measures.is_empty():
        return []
    rows = []
    for row in measures.filter(model="new").iter_rows(named=True):
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


def _curves(measures: pl.DataFrame) -> dict[str, dict[str, pl.DataFrame]]:
    """Return the reliability curves by content type, of the model in use before and of the new one."""
    titles = {"old": "The model before, on the same labels", "new": "The new model"}
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


def inventory_by_week(workspace: Workspace, day: date) -> pl.DataFrame:
    """Return week, category, fraction and inventory: of the candidates that were shown, and of the ads that ran."""
    shown = STAGES[STAGES.index("impressed") :]
    candidates = (
        workspace.tables.scan(SCORED_CANDIDATES)
        .filter(pl.col("day") > day - SEASON_DAYS, pl.col("day") <= day, pl.col("stage").is_in(shown))
        .drop("features")
        .collect()
    )
    if candidates.is_empty():
        return pl.DataFrame()
    judged = judging_of(workspace, day)(candidates).drop_nulls(["relevant", "category"])
    fractions = judged.group_by("category", week=pl.col("day").dt.truncate("1w")).agg(
        fraction=pl.col("relevant").mean()
    )
    weeks = fractions["week"].unique().sort().to_list()
    inventories = [_inventory(workspace, min(week + timedelta(days=6), day)).with_columns(week=week) for week in weeks]
    return (
        fractions.join(pl.concat(inventories), on=["week", "category"], how="left")
        .with_columns(pl.col("inventory").fill_null(0))
        .sort("week", "category")
    )


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

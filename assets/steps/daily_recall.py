"""The prequential measurement of a day: read what was ready the day before, measure, draw, log."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.encode import embedded_as_of, encode_day, missing_days, read_item_embeddings, snapshot_embeddings
from assets.steps.period import label_rule
from assets.steps.versions import ModelVersion, serving
from warehouse.as_of import scan_events
from warehouse.days import day_end
from warehouse.states import inferred_days
from warehouse.tables import Tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.daily_recall import Asked


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


def prequential(workspace: Workspace, day: date, tags: dict[str, str]) -> Prequential:
    """Measure the snapshot and item embeddings of the day before against the positives of ``day``."""
    from ml.evaluation.daily_recall import measure_day
    from ml.evaluation.model_names import ModelName
    from ml.figures.charts import daily_recall_curve
    from ml.versions.tracking import DAILY

    tables, before, tracking = workspace.tables, day - timedelta(days=1), workspace.tracking
    version = serving(tables, workspace.home, before, tracking.champion())
    for earlier in missing_days(workspace, version, day):  # a day that runs before the one before it
        encode_day(workspace, version, earlier)
    item_ids, embeddings = read_item_embeddings(tables, version, embedded_as_of(workspace, version, before))
    log = _log_of_day(workspace, version, day)
    user_embeddings = np.zeros((0, embeddings.shape[1]), np.float32)
    if len(log.asked.users):
        _, user_embeddings = snapshot_embeddings(workspace, version, before, log.asked.users)
    rows = measure_day(
        log.asked,
        log.history,
        log.engaged,
        user_embeddings=user_embeddings,
        item_ids=item_ids,
        item_embeddings=embeddings,
        ks=workspace.settings.evaluation.ks,
    )
    curve = daily_recall_curve(*_curve(tables, day, rows))
    headline = dict(rows.filter(model=ModelName.contextual.value).drop_nulls("value").select("metric", "value").rows())
    url = None
    if headline:
        import mlflow

        from ml.evaluation.report_rows import Protocol, ReportRow
        from ml.versions.report_runs import log_rows
        from ml.versions.tracking import log_figures

        measured = [ReportRow(*row) for row in rows.select("model", "metric", "value").rows()]
        tracking.replace_run(DAILY, "day", str(day))
        with tracking.run(DAILY, f"daily_recall {day}", {**tags, "day": str(day)}) as run:
            mlflow.log_params({"day": str(day), "served_by": version.name, **workspace.settings.flat()})
            log_rows(measured, Protocol.daily, step=day.toordinal())
            log_figures({"recall_by_day": curve})
        url = tracking.url(run)
    first = rows.row(0, named=True)
    return Prequential(rows, first["users"], first["positives"], headline, version.name, curve, url)


@dataclass(frozen=True)
class _LogOfDay:
    asked: "Asked"
    history: pl.DataFrame | None  # user_id, item_id of who converted, from before the day; None where repeats count
    engaged: pl.DataFrame  # item_id, events, recent


def _log_of_day(workspace: Workspace, version: ModelVersion, day: date) -> _LogOfDay:
    """Return the conversions of ``day`` by users with a state of the day before, and what is known from before."""
    from ml.evaluation.daily_recall import recent_from, who_is_asked

    tables, landing, before = workspace.tables, workspace.landing, day - timedelta(days=1)
    start, rule = day_end(before, landing.manifest.time_zone), label_rule(landing, workspace.settings)
    log, happened, pair = scan_events(tables, landing, day), pl.col("event_time") >= start, ["user_id", "item_id"]
    positive = pl.col("event_name").is_in(list(rule.event_names)) & pl.col("item_id").is_not_null()
    converted = log.filter(happened, positive).select(pair).unique().collect(engine="streaming")
    known = inferred_days(tables, version.name, before)["user_id"]
    converted = converted.filter(pl.col("user_id").is_in(known.implode()))
    earlier, history = log.filter(~happened), None
    if not rule.repeats_count:
        theirs = pl.col("user_id").is_in(converted["user_id"].unique().implode())
        history = earlier.filter(theirs).select(pair).drop_nulls().unique().collect(engine="streaming")
    recent = (pl.col("event_time") >= recent_from(rule, start)).sum().alias("recent")
    counted = earlier.filter(pl.col("item_id").is_not_null()).group_by("item_id").agg(recent, events=pl.len())
    asked = who_is_asked(
        converted,
        history,
        maximum_users=workspace.settings.evaluation.maximum_users,
        seed=start.toordinal(),
    )
    return _LogOfDay(asked, history, counted.collect(engine="streaming"))


def _curve(tables: Tables, day: date, rows: pl.DataFrame) -> tuple[list[date], dict[str, list[float | None]]]:
    """Return Recall@100 by day and model up to ``day``, for the figure; no days where the catalogue has no such K."""
    today = rows.with_columns(day=pl.lit(day)).filter(metric="recall@100").select("day", "model", "value")
    parts = [today]
    if tables.exists("daily_recall"):
        earlier = tables.scan("daily_recall").filter(pl.col("day") < day, pl.col("metric") == "recall@100")
        parts.insert(0, earlier.select("day", "model", "value").collect())
    wide = pl.concat(parts).pivot("model", index="day", values="value", aggregate_function="first").sort("day").tail(60)
    return wide["day"].to_list(), {name: wide[name].to_list() for name in wide.columns if name != "day"}

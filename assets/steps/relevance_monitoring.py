"""Monitoring of a day's scored candidates against the days before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.relevance_metrics import RelevanceReport, write_metrics
from assets.steps.score_candidates import scored_on
from warehouse.tables import Tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELEVANCE_MONITORING = "relevance_monitoring"
SHOWN = timedelta(days=60)
SHOWN_FEATURES = 8
WATCHED_REQUESTS = 5000
"""Requests that are watched of a day, log and surface: more move no figure, and a year's log would not fit."""


@dataclass(frozen=True)
class Monitored:
    """The watched figures of a day.

    Attributes:
        table: of ``ml.relevance.monitoring.monitor``. warnings: sentences by figure.
        pictures: coverage and trim rate by day.
    """

    table: pl.DataFrame
    warnings: dict[str, list[str]]
    pictures: dict[str, Figure]


def watch_relevance(workspace: Workspace, day: date) -> Monitored:
    """Hold the candidates of a day against those of ``relevance.watched_days`` days before, and store the figures."""
    from ml.evaluation.report_rows import rows_of
    from ml.relevance.monitoring import Bounds, Figure, monitor, warnings_of
    from ml.relevance.pair_features import FEATURE_NAMES

    settings = workspace.settings.relevance
    since = day - timedelta(days=settings.watched_days)
    whole = pl.col("features").is_not_null() | pl.col("relevance_version").is_null()  # retention has not thinned it
    scored = sampled_requests(scored_on(workspace.tables, since, day).filter(whole), most=WATCHED_REQUESTS)
    today, before = scored.filter(pl.col("day") == day), scored.filter(pl.col("day") < day)
    features = dict.fromkeys(scored["relevance_version"].drop_nulls().unique(), FEATURE_NAMES)
    bounds = Bounds(settings.coverage_bound, settings.stability_bound, settings.trim_rate_bound)
    table = monitor(today, before, features, bounds)
    workspace.tables.write(RELEVANCE_MONITORING, table, {"day": day})
    warned = {figure.value: warnings_of(table.filter(figure=figure.value)) for figure in Figure}
    watched = table.filter(pl.col("bound").is_not_null()).height
    counts = {"warnings": sum(map(len, warned.values())), "watched_figures": watched}
    write_metrics(workspace, day, RelevanceReport.monitoring, rows_of("service", counts))
    return Monitored(table, warned, _pictures(workspace.tables, day))


def sampled_requests(scored: pl.LazyFrame, *, most: int) -> pl.DataFrame:
    """Return the candidates of about ``most`` requests of each day, log and surface; of all, where there are fewer.

    The hash of a request chooses it. Its inclusion probability becomes less by the share that is chosen.
    """
    parts = ["day", "log", "surface"]
    share = pl.min_horizontal(1.0, most / pl.col("request_id").n_unique())
    shares = scored.group_by(parts).agg(share=share).collect(engine="streaming")
    place = pl.col("request_id").hash(0) / 2.0**64
    return (
        scored.join(shares.lazy(), on=parts)
        .filter(place < pl.col("share"))
        .with_columns(inclusion_probability=pl.col("inclusion_probability").fill_null(1.0) * pl.col("share"))
        .drop("share")
        .collect(engine="streaming")
        .sort("day", "log", "request_id", "item_id")
    )


def _pictures(tables: Tables, day: date) -> dict[str, Figure]:
    """Return the coverage of the features that are known least, and the trim rate, by day, of the largest cells."""
    from ml.figures.relevance_charts import watched_shares

    rows = tables.scan(RELEVANCE_MONITORING).filter(pl.col("day") > day - SHOWN, pl.col("day") <= day).collect()
    if rows.is_empty():
        return {}
    weighted = (pl.col("value") * pl.col("candidates")).sum() / pl.col("candidates").sum()
    coverage = rows.filter(figure="coverage").group_by("day", name="feature").agg(value=weighted)
    rates = rows.filter(figure="trim_rate").group_by("day", name=pl.format("{}, {}", "surface", "content_type"))
    rate, candidates = rates.agg(value=weighted, candidates=pl.col("candidates").sum()), "candidates"
    least = coverage.group_by("name").agg(pl.col("value").min()).sort("value", "name").head(SHOWN_FEATURES)["name"]
    largest = rate.group_by("name").agg(pl.col(candidates).sum()).sort(candidates, "name", descending=True)
    largest_names = largest.head(SHOWN_FEATURES)["name"]
    return {
        "coverage": watched_shares(*_by_day(coverage, least), "Coverage of the features known least"),
        "trim_rate": watched_shares(*_by_day(rate, largest_names), "Share that the trim drops"),
    }


def _by_day(rows: pl.DataFrame, names: pl.Series) -> tuple[list[date], dict[str, list[float | None]]]:
    """Return the days of rows (day, name, value), and the value a day of each name."""
    days = rows["day"].unique().sort().to_list()
    values = {(day, name): value for day, name, value in rows.select("day", "name", "value").rows()}
    return days, {name: [values.get((day, name)) for day in days] for name in names.sort()}

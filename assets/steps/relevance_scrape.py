"""The daily scrape: the service's lists for the probes under production and under holdout, and their relevance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.judge_candidates import judging_of
from assets.steps.relevance_metrics import RelevanceReport, metrics_by_day, write_metrics
from warehouse.as_of import arrived_by
from warehouse.contracts import CATEGORY_SEPARATOR, STAGES, LandingTable
from warehouse.surfaces import carries_its_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ml.evaluation.report_rows import ReportRow
    from ml.relevance.scrape import Lists, Scrape

RELEVANCE_SCRAPE = "relevance_scrape"
SERVICE = "service"
GAP = "holdout_gap"
SPREAD_DAYS = timedelta(days=28)
SHOWN = timedelta(days=60)
REPEATS = 1000
DEMANDED = 0.01
"""Relative difference that 95 % of the A/A comparisons are asked to stay within."""


@dataclass(frozen=True)
class MeasuredScrape:
    """A day's scrape.

    Attributes:
        figures: of the day. gap: by day, a picture.
    """

    probes: int
    figures: pl.DataFrame
    gap: Figure


def scrape_relevance(workspace: Workspace, day: date, lists: Lists) -> MeasuredScrape | None:
    """Ask the probes of a day, store the measures without users, and return the figures; None without a probe."""
    from ml.relevance.probes import draw_probes, population
    from ml.relevance.scrape import scrape

    settings = workspace.settings
    known = population(*_logged(workspace, day))
    probes = draw_probes(
        known, settings.relevance.probes, seed=settings.training.seed, spreads=_spreads(workspace, day)
    )
    if probes.is_empty():
        return None
    found = scrape(probes, lists, judging_of(workspace, day))
    workspace.tables.write(RELEVANCE_SCRAPE, _stored(found), {"day": day})
    figures = write_metrics(workspace, day, RelevanceReport.scrape, scrape_rows(found, seed=settings.training.seed))
    return MeasuredScrape(len(probes), figures, gap_picture(workspace, day))


def scrape_rows(found: Scrape, *, seed: int) -> list[ReportRow]:
    """Return the figures of a scrape: the gap to the holdout and both arms, by surface; the precision of all probes."""
    from ml.evaluation.report_rows import ReportRow, Segment, rows_of
    from ml.relevance.candidates import HOLDOUT, PRODUCTION
    from ml.relevance.scrape import FRACTION, NDCG, within

    names = {FRACTION: ("fraction_relevant@10", GAP), NDCG: ("scrape.ndcg@10", f"{GAP}.ndcg@10")}
    rows: list[ReportRow] = []
    for surface in ["", *found.probes["surface"].unique().sort()]:
        segment, where = (Segment.surface, pl.col("surface") == surface) if surface else (Segment.all, None)
        for measure, (level, gap) in names.items():
            means = {f"{level}.{arm}": found.mean(arm, measure, where=where) for arm in (PRODUCTION, HOLDOUT)}
            rows += rows_of(SERVICE, means, segment, surface)
            difference = found.gap(measure, where=where)
            rows.append(ReportRow.of(SERVICE, gap, difference.interval, segment=segment, group=surface))
    gap_of_all = found.gap()
    drawn = found.aa_differences(repeats=REPEATS, seed=seed)
    judged_by = found.production["judge"].drop_nulls().value_counts(sort=True)
    shares = {f"judged_by.{judge}": count / len(found.probes) for judge, count in judged_by.rows()}
    precision = {
        "probes": len(found.probes),
        "aa.within_1_percent": within(drawn, DEMANDED),
        "aa.smallest_detectable_change": gap_of_all.smallest_detectable_change,
        "aa.smallest_without_strata": gap_of_all.smallest_without_strata,
        "aa.power_at_3_percent": gap_of_all.power(0.03),
        "aa.smallest_detectable_change.ndcg@10": found.gap(NDCG).smallest_detectable_change,
    }
    return rows + rows_of(SERVICE, precision | shares)


def gap_picture(workspace: Workspace, day: date) -> Figure:
    """Draw the gap to the holdout by day and surface, up to ``day``."""
    from ml.evaluation.intervals import Interval
    from ml.figures.relevance_charts import gap_by_day

    rows = metrics_by_day(workspace.tables, RelevanceReport.scrape, day)
    gaps = rows.filter(metric=GAP, segment="surface").filter(pl.col("day") > day - SHOWN)
    days = gaps["day"].unique().sort().to_list()
    found = {
        (when, surface): Interval(value, low, high)
        for when, surface, value, low, high in gaps.select("day", "group", "value", "low", "high").rows()
        if value is not None
    }
    surfaces = gaps["group"].unique().sort()
    return gap_by_day(days, {surface: [found.get((when, surface)) for when in days] for surface in surfaces})


def _logged(workspace: Workspace, day: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the users of each place and how often they asked, and the head category of each place.

    A place is a known subject item or a query. The category of a query is that of most of the items that it was
    answered with. The rows of the log are counted as they are read, so that they are never all in memory.
    """
    from ml.relevance.judgements import PLACE

    items = workspace.items_as_of(day).select(
        "item_id", category=pl.col("category").str.split(CATEGORY_SEPARATOR).list.first()
    )
    shown = STAGES[STAGES.index("impressed") :]
    subject = pl.col("subject_item_id")
    logged = arrived_by(workspace.tables, LandingTable.impressions, day).filter(
        pl.col("stage").is_in(shown),
        carries_its_place(),
        subject.is_null() | subject.is_in(items["item_id"].implode()),
    )
    asked = (
        logged.group_by(*PLACE, "user_id")
        .agg(requests=pl.col("request_id").n_unique().cast(pl.Int64))
        .collect(engine="streaming")
    )
    answered = (
        logged.filter(subject.is_null())
        .join(items.lazy().drop_nulls("category"), on="item_id")
        .group_by(*PLACE, "category")
        .len()
        .collect(engine="streaming")
    )
    beside = asked.filter(subject.is_not_null()).select(PLACE).unique()
    of_subjects = beside.join(items, left_on="subject_item_id", right_on="item_id", how="left")
    most = answered.sort("len", "category", descending=[True, False])
    of_queries = most.unique(PLACE, keep="first", maintain_order=True)
    categories = pl.concat([each.select(*PLACE, "category") for each in (of_subjects, of_queries)])
    return asked, categories


def _stored(found: Scrape) -> pl.DataFrame:
    """Return a row a probe without its user, for the table ``relevance_scrape``."""
    from ml.relevance.judgements import PLACE
    from ml.relevance.scrape import FRACTION, NDCG

    return found.probes.select(*PLACE, "stratum", "weight").with_columns(
        production=found.production[FRACTION],
        holdout=found.holdout[FRACTION],
        production_ndcg=found.production[NDCG],
        holdout_ndcg=found.holdout[NDCG],
        judge=found.production["judge"],
    )


def _spreads(workspace: Workspace, day: date) -> dict[str, float]:
    """Return the standard deviation of the gap in each stratum over the scrapes of the last weeks."""
    from ml.relevance.probes import spreads_of

    if not workspace.tables.exists(RELEVANCE_SCRAPE):
        return {}
    earlier = workspace.tables.scan(RELEVANCE_SCRAPE).filter(pl.col("day") < day, pl.col("day") >= day - SPREAD_DAYS)
    return spreads_of(earlier)

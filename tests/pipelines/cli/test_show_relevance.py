"""``adseq relevance report`` shows what the newest day measured, and says so where there is nothing."""

from __future__ import annotations

import io
from datetime import date

import polars as pl
from rich.console import Console

from assets.steps.rater_agreement import RATER_AGREEMENT
from assets.steps.relevance_metrics import RELEVANCE_METRICS
from assets.steps.relevance_monitoring import RELEVANCE_MONITORING
from ml.evaluation.report_rows import ReportRow, Segment, rows_frame
from ml.relevance.monitoring import MONITORED
from pipelines.cli.show_relevance import show_relevance
from pipelines.cli.summary_figures import summary_figures
from warehouse.home import Home
from warehouse.tables import Tables

DAY, BEFORE = date(2026, 3, 2), date(2026, 3, 1)
ROWS = {
    "model": [
        ReportRow("relevance_model", "ece", 0.011),
        ReportRow("relevance_model", "ece", 0.012, segment=Segment.cell, group="search.video"),
        ReportRow("relevance_model", "labels", 1234, segment=Segment.cell, group="search.video"),
        ReportRow("relevance_model", "trim.label1_trimmed", 0.85),
        ReportRow("relevance_model", "trim.label4_trimmed", 0.04),
    ],
    "scrape": [
        ReportRow("service", "holdout_gap", 0.2, 0.19, 0.21),
        ReportRow("service", "holdout_gap", 0.3, 0.28, 0.32, Segment.surface, "search"),
        ReportRow("service", "fraction_relevant@10.production", 0.6, segment=Segment.surface, group="search"),
        ReportRow("service", "aa.within_1_percent", 0.97),
        ReportRow("service", "aa.smallest_detectable_change", 0.0024),
        ReportRow("service", "probes", 20_000),
    ],
    "funnel": [ReportRow("funnel", "fraction_relevant.retrieved", 0.0625)],
    "agreement": [
        ReportRow("raters", "disagreement", 0.08, 0.07, 0.09),
        ReportRow("raters", "alpha", 0.81),
        ReportRow("raters", "rated_pairs", 4000),
    ],
}


def shown(home: Home) -> str:
    console = Console(file=io.StringIO(), width=160)
    show_relevance(home, console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def measured(home: Home) -> Tables:
    tables = Tables(home.tables)
    for report, rows in ROWS.items():
        tables.write(RELEVANCE_METRICS, rows_frame(rows), {"day": DAY, "report": report})
    old = [ReportRow("relevance_model", "ece", 0.9), ReportRow("relevance_model", "alpha", 0.1)]
    tables.write(RELEVANCE_METRICS, rows_frame(old), {"day": BEFORE, "report": "model"})
    raters = {"rater_id": ["ann", "bob"], "pairs": [50, 50], "bias": [0.5, 0.1], "biased": [True, False]}
    tables.write(RATER_AGREEMENT, pl.DataFrame(raters), {"day": DAY})
    row = ("impressions", "search", "video", "relevance-1", "coverage", "text", 0.4, 0.9, 0.81, 900, 90.0, True)
    tables.write(RELEVANCE_MONITORING, pl.DataFrame([row], schema=MONITORED, orient="row"), {"day": DAY})
    return tables


def test_a_home_without_relevance_says_where_labels_come_from(home: Home) -> None:
    assert "Nothing about relevance has been measured yet" in shown(home)


def test_the_newest_day_is_shown_with_its_warnings(home: Home) -> None:
    measured(home)
    text = shown(home)
    assert "search, video │ 1,234 │ – │ – │ 0.0120" in text
    assert "The trim drops 85.0% of label 1, and 4.0% of the relevant labels." in text
    assert "search │ 0.6000 │ – │ +30.00% (+28.00% to +32.00%)" in text
    assert "two raters differ on 8.0% of 4,000 pairs, Krippendorff's alpha 0.81." in text
    assert "ann is biased: +0.50 points" in text
    assert "bob is biased" not in text
    assert "97.0% of the A/A comparisons of 20,000 probes" in text
    assert "1 warnings, 1 figures with a bound. impressions, search, video, relevance-1: the feature text is" in text


def test_the_summary_names_the_figures_without_a_model(home: Home) -> None:
    measured(home)
    figures = summary_figures(home)
    assert figures["relevance.search.video.ece"] == 0.012
    assert figures["relevance.ece"] == 0.011  # of the newest day
    assert figures["relevance.trim.label1_trimmed"] == 0.85
    assert (figures["relevance.holdout_gap"], figures["relevance.holdout_gap.low"]) == (0.2, 0.19)
    assert figures["relevance.search.holdout_gap.high"] == 0.32
    assert figures["relevance.disagreement"] == 0.08
    assert figures["relevance.alpha"] == 0.81

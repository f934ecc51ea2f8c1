"""Figures of relevance show what they are given: lines, names, intervals, and what is missing as a gap."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from ml.evaluation.intervals import Interval
from ml.figures.relevance_charts import calibration_curves, funnel_chart, gap_by_day, seasons_chart, watched_shares
from ml.figures.style import png

DAYS = [date(2026, 3, 1) + timedelta(days=each) for each in range(4)]
CURVE = pl.DataFrame({"score": [0.1, 0.5], "target": [0.2, 0.4], "labels": [30, 90]})
FEW = CURVE.with_columns(labels=pl.lit(5))


def names(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_each_model_has_a_panel_and_each_content_type_a_curve() -> None:
    figure = calibration_curves(
        {"Before": {"video": CURVE, "carousel": FEW}, "After": {"video": CURVE, "shopping": CURVE}}
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Before", "After"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 3]  # with the diagonal
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"Calibrated", "video", "shopping"}
    assert png(figure)
    assert png(calibration_curves({"Before": {}}))


def test_the_funnel_has_a_line_a_category_until_few_requests_are_left() -> None:
    rows = [
        ("all", "", "retrieved", 0.1, 0.09, 0.11, 900, 90),
        ("all", "", "ranked", 0.3, None, None, 90, 40),
        ("category", "Home", "retrieved", 0.1, None, None, 800, 80),
        ("category", "Home", "ranked", 0.4, None, None, 80, 40),
        ("category", "Toys", "retrieved", 0.2, None, None, 100, 50),
        ("category", "Toys", "ranked", 0.9, None, None, 3, 3),
    ]
    columns = ["segment", "group", "stage", "fraction", "low", "high", "candidates", "requests"]
    figure = funnel_chart(pl.DataFrame(rows, schema=columns, orient="row"), "category")
    assert names(figure) == ["Toys", "All", "Home"]  # from the lowest end to the highest
    assert [np.size(line.get_xdata()) for line in figure.axes[0].lines] == [2, 2, 1]
    assert png(figure)


def test_a_day_without_a_scrape_is_a_gap() -> None:
    figure = gap_by_day(DAYS, {"search": [Interval(0.1, 0.08, 0.12), None, Interval(0.2, 0.1, 0.3), None]})
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).tolist() == [False, True, False, True]
    assert names(figure) == ["search"]
    assert png(gap_by_day(DAYS[:1], {}))


def test_seasons_and_watched_shares_are_drawn() -> None:
    weeks = pl.DataFrame(
        {
            "week": DAYS[:2] * 2,
            "category": ["Home"] * 2 + ["Toys"] * 2,
            "fraction": [0.1, None, 0.2, 0.3],
            "inventory": 9,
        }
    )
    figure = seasons_chart(weeks)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert png(figure)
    assert names(watched_shares(DAYS, {"price_ratio": [1.0, None, 0.5, 0.4]}, "Coverage")) == ["price_ratio"]

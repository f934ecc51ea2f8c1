"""Figures draw on every input they may meet, say what they show, and keep a model's colour."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from ml.evaluation.intervals import Interval
from ml.evaluation.model_names import ModelName
from ml.figures import charts as figures
from ml.figures.charts import ContextLift
from ml.figures.style import MODEL_COLOURS, model_label, png, to_markdown_image

MODELS = [model.value for model in ModelName]
DAYS = [date(2024, 2, 28) + timedelta(days=day) for day in range(20)]


def segments(models: list[str]) -> dict[str, pl.DataFrame]:
    frame = pl.DataFrame({"segment": ["1-2", "3+"], "queries": [5, 6], "positives": [1200, 7], "recall": [0.1, 0.2]})
    return dict.fromkeys(models, frame)


DRAWN: dict[str, Callable[[], Figure]] = {
    "recall_curve": lambda: figures.recall_curve({model: {10: 0.1, 100: 0.2, 1000: 0.5} for model in MODELS}),
    "recall_curve of nothing found": lambda: figures.recall_curve({"popularity": {10: 0.0}}),
    "segment_bars": lambda: figures.segment_bars(segments(MODELS), "History length (events)", 100),
    "diversity_scatter": lambda: figures.diversity_scatter(dict.fromkeys(MODELS, (0.4, 0.1))),
    "diversity_scatter of zeros": lambda: figures.diversity_scatter({"popularity": (0.0, 0.0)}),
    "pareto_scatter": lambda: figures.pareto_scatter({"0 / 1": (0.2, 0.1), "0 / 0.5": (0.3, 0.08)}, ["0 / 1"]),
    "pareto_scatter of one point": lambda: figures.pareto_scatter({"0 / 1": (0.0, 0.0)}, ["0 / 1"]),
    "context_bars": lambda: figures.context_bars({"contextual": ContextLift(0.1, 0.2, 0.3, 0.6)}, 100),
    "daily_recall_curve": lambda: figures.daily_recall_curve(DAYS, {"contextual": [None, *[0.2] * 19]}),
    "daily_recall_curve of one day": lambda: figures.daily_recall_curve(DAYS[:1], {"contextual": [0.2]}),
    "daily_recall_curve of gaps": lambda: figures.daily_recall_curve(DAYS[:2], {"contextual": [None, None]}),
    "counts_bar": lambda: figures.counts_bar(DAYS, {"checkout": [4] * 20, "signup": [0] * 20}),
    "history_length_histogram": lambda: figures.history_length_histogram([0, 1, 1, 7, 100]),
    "history_length_histogram of nobody": lambda: figures.history_length_histogram([]),
    "recall_interval_bars": lambda: figures.recall_interval_bars({m: Interval(0.2, 0.1, 0.3) for m in MODELS}, 100),
    "recall_interval_bars without resamples": lambda: figures.recall_interval_bars(
        {"contextual": Interval(0.2, float("nan"), float("nan"))}, 100
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_draws_with_a_title_and_a_named_axis(name: str) -> None:
    figure = DRAWN[name]()
    assert png(figure).startswith(b"\x89PNG")
    assert figure.get_suptitle().strip()
    assert all(axes.get_ylabel() or axes.get_xlabel() for axes in figure.axes)


def test_bars_have_the_heights_and_colours_of_their_models() -> None:
    bars = figures.segment_bars(segments(["item_knn", "contextual"]), "Country", 50).axes[0].containers
    assert [[bar.get_height() for bar in group] for group in bars] == [[0.1, 0.2], [0.1, 0.2]]
    colours = [group[0].get_facecolor()[:3] for group in bars]
    for colour, model in zip(colours, ("item_knn", "contextual"), strict=True):
        assert "#" + "".join(f"{round(part * 255):02x}" for part in colour) == MODEL_COLOURS[model]


def test_the_front_is_drawn_through_its_points_and_every_point_has_its_label() -> None:
    points = {"a": (0.3, 0.1), "b": (0.1, 0.2), "c": (0.1, 0.1)}
    axes = figures.pareto_scatter(points, ["a", "b"]).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0.1, 0.2], [0.3, 0.1]]
    assert {text.get_text(): text.xy for text in axes.texts if isinstance(text, Annotation)} == points
    drawn = [(dots.get_offsets()[0].tolist(), dots.get_facecolor()[0].tolist()) for dots in axes.collections]
    assert [tuple(place) for place, _ in drawn] == list(points.values())
    assert drawn[0][1] == drawn[1][1] != drawn[2][1]


def test_counts_by_week_have_bars_as_wide_as_weeks() -> None:
    weeks = [date(2024, 1, 1) + timedelta(weeks=week) for week in range(4)]
    axes = figures.counts_bar(weeks, {"checkout": [1, 2, 3, 4], "signup": [1, 1, 1, 1]}, "Events by week").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Week", "Events a week")
    first, second = ([path.get_extents() for path in bars.get_paths()] for bars in axes.collections)
    assert first[0].width == pytest.approx(5.6)
    assert [(bar.y0, bar.y1) for bar in first] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert [(bar.y0, bar.y1) for bar in second] == [(1, 2), (2, 3), (3, 4), (4, 5)]  # stacked on the first


def test_the_histogram_counts_every_user_once() -> None:
    lengths = np.random.default_rng(0).integers(0, 300, 1000)
    bars = figures.history_length_histogram(lengths).axes[0].containers[0]
    assert sum(bar.get_height() for bar in bars) == 1000
    assert bars[0].get_height() == (lengths == 0).sum()


def test_names_at_line_ends_do_not_overlap_and_keep_their_order() -> None:
    figure = figures.recall_curve({model: {10: 0.1, 100: 0.2 + 0.001 * n} for n, model in enumerate(MODELS)})
    png(figure)
    boxes = sorted(
        (text.get_window_extent().y0, text.get_window_extent().y1, text.get_text()) for text in figure.axes[0].texts
    )
    assert [text for *_, text in boxes] == [model_label(model) for model in MODELS]
    assert all(below[1] <= above[0] + 1 for below, above in pairwise(boxes))


def test_a_markdown_image_carries_its_data() -> None:
    text = to_markdown_image(DRAWN["counts_bar"](), "events [by day]")
    head, _, data = text.removesuffix(")").partition(",")
    assert head == "![events (by day)](data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_a_figure_is_drawn_once_and_anew_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []

    def counted(canvas: FigureCanvasAgg, *arguments: Any) -> None:
        times.append(canvas)
        draw(canvas, *arguments)

    draw = FigureCanvasAgg.print_png
    monkeypatch.setattr(FigureCanvasAgg, "print_png", counted)
    figure = DRAWN["counts_bar"]()
    first = png(figure)
    assert png(figure) is first
    assert len(times) == 1
    figure.axes[0].set_ylim(0, 1000)
    assert png(figure) != first
    assert len(times) == 2


@pytest.mark.slow
def test_drawing_loads_neither_pyplot_nor_torch() -> None:
    code = "import sys, ml.figures.charts; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("days", [1, 12, 100, 500, 1500, 1650, 3000])
def test_a_date_axis_of_any_length_has_its_ticks(days: int, recwarn: pytest.WarningsRecorder) -> None:
    """Matplotlib has no interval of its own for four and a half years, and said so on the terminal."""
    dates = [date(2026, 3, 1) - timedelta(days=days - number) for number in range(days)]
    png(figures.shares_by_day(dates, {"known": [0.5] * days}, "What is known"))
    assert not [warning for warning in recwarn if "AutoDateLocator" in str(warning.message)]


def test_every_model_has_a_colour_of_its_own() -> None:
    colours = [MODEL_COLOURS[model] for model in ModelName]
    assert len(set(colours)) == len(colours)

"""The figures of reports and of asset metadata; ``ml.figures.style`` defines their look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from ml.figures.style import (
    GRID,
    INK,
    MODEL_COLOURS,
    QUIET,
    as_percent,
    canvas,
    count_axis,
    date_axis,
    dress,
    finite_values,
    legend_below,
    lower_first,
    model_colour,
    model_label,
    name_line_ends,
    other_colours,
    pairs_of_bars,
    percent_axis,
    put_titles,
    sheet,
    ticks_apart,
)

if TYPE_CHECKING:  # ml.evaluation.intervals loads torch, which drawing does not need
    from ml.evaluation.intervals import Interval

DIVERSITY = "Diversity: share of the catalogue that fills 90 % of all retrieved slots"


@dataclass(frozen=True)
class ContextLift:
    """A surface with and without the context: recall, and the median relevance of candidates to the subject item."""

    recall_without: float
    recall_with: float
    relevance_without: float
    relevance_with: float


def recall_curve(by_model: Mapping[str, Mapping[int, float]], subtitle: str = "") -> Figure:
    """Draw recall against the list length K (log axis), one line a model, with the model's name at the end."""
    figure, axes = canvas("Recall by list length", subtitle, "List length K", y_label="Recall@K")
    for model, recall in by_model.items():
        ks = sorted(recall)
        axes.plot(
            ks,
            [recall[k] for k in ks],
            color=model_colour(model),
            marker="o",
            markersize=4.5,
            linewidth=2.6 if model == "contextual" else 1.8,
            linestyle="--" if model == "oracle" else "-",
        )
    ticks = sorted({k for recall in by_model.values() for k in recall})
    axes.set_xscale("log")
    axes.set_xticks(ticks_apart(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:,.0f}"))
    percent_axis(axes)
    axes.set_ylim(0, 1.08 * max(max(recall.values()) for recall in by_model.values()) or 1)
    name_line_ends(figure, axes, {model: (max(recall), recall[max(recall)]) for model, recall in by_model.items()})
    return figure


def segment_bars(by_model: Mapping[str, pl.DataFrame], segment_name: str, k: int, subtitle: str = "") -> Figure:
    """Draw recall by segment, one bar a model.

    Args:
        by_model: frames of ``ml.evaluation.metrics.recall_by_segment``; the segments stand in the first frame's order.
        segment_name: a name for the segments, such as "History length (events)".
        k: list length of the recall, for the labels.
    """
    first = next(iter(by_model.values()))
    segments = first["segment"].to_list()
    figure, axes = canvas(f"Recall@{k} by {lower_first(segment_name)}", subtitle, segment_name, y_label=f"Recall@{k}")
    width = 0.8 / len(by_model)
    for position, (model, frame) in enumerate(by_model.items()):
        recall = dict(frame.select("segment", "recall").iter_rows())
        left = np.arange(len(segments)) - 0.4 + (position + 0.5) * width
        heights = [recall.get(segment, np.nan) for segment in segments]
        axes.bar(left, heights, width * 0.92, color=model_colour(model), label=model_label(model))
    counts = first["positives"].to_list()
    names = [f"{segment}\n{count:,} positives" for segment, count in zip(segments, counts, strict=True)]
    axes.set_xticks(range(len(segments)), names)
    percent_axis(axes)
    legend_below(axes, len(by_model))
    return figure


def diversity_scatter(points: Mapping[str, tuple[float, float]], k: int = 100, subtitle: str = "") -> Figure:
    """Draw diversity against recall: one named point a model, (diversity90, recall@K)."""
    note = subtitle or "Up and to the right is better"
    figure, axes = canvas(f"Diversity and Recall@{k} by model", note, DIVERSITY, y_label=f"Recall@{k}")
    for model, (diversity, recall) in points.items():
        axes.scatter(diversity, recall, s=110, color=model_colour(model), edgecolor="white", linewidth=1.2, zorder=3)
    axes.set_xlim(0, 1.25 * max(diversity for diversity, _ in points.values()) or 1)
    axes.set_ylim(0, 1.15 * max(recall for _, recall in points.values()) or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(as_percent))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    percent_axis(axes)
    name_line_ends(figure, axes, points)
    return figure


def pareto_scatter(
    points: Mapping[str, tuple[float, float]], front: Sequence[str], k: int = 100, subtitle: str = ""
) -> Figure:
    """Draw diversity against recall: a labelled point a setting, (diversity90, recall@K), and the line ``front``."""
    figure, axes = canvas(f"Diversity and Recall@{k}: the front", subtitle, DIVERSITY, y_label=f"Recall@{k}")
    percent_axis(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(as_percent))
    axes.plot(*np.array(sorted(points[label] for label in front)).T, color=MODEL_COLOURS["contextual"], linewidth=1.8)
    for label, place in points.items():
        colour = MODEL_COLOURS["contextual" if label in front else "popularity"]
        axes.scatter(*place, s=80, color=colour, edgecolor="white", linewidth=1.2, zorder=3)
        axes.annotate(label, place, (7, 6), textcoords="offset points", fontsize=9, color=INK)
    axes.margins(0.16)
    axes.autoscale()  # the points lie close together: an axis from zero would hide their differences
    return figure


def context_bars(by_surface: Mapping[str, ContextLift], k: int, subtitle: str = "") -> Figure:
    """Draw, with and without context, the recall and the candidates' relevance to the subject item, side by side."""
    figure = sheet((9.6, 4.6))
    put_titles(figure, "What the context adds", subtitle)
    panels = figure.subplots(1, 2)
    names, lifts = list(by_surface), list(by_surface.values())
    recall = ([lift.recall_without for lift in lifts], [lift.recall_with for lift in lifts])
    beside = {name: lift for name, lift in by_surface.items() if np.isfinite(lift.relevance_with)}  # not of a search
    relevance = (
        [lift.relevance_without for lift in beside.values()],
        [lift.relevance_with for lift in beside.values()],
    )
    dress(panels[0], "", f"Recall@{k}")
    pairs_of_bars(panels[0], names, recall, lambda value: f"{100 * value:.1f} %")
    percent_axis(panels[0])
    dress(panels[1], "", "Median relevance to the subject")
    pairs_of_bars(panels[1], list(beside), relevance, lambda value: f"{value:.2f}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def daily_recall_curve(
    days: Sequence[date], series: Mapping[str, Sequence[float | None]], k: int = 100, subtitle: str = ""
) -> Figure:
    """Draw prequential recall by day: each day's positives against models and indexes of the day before.

    Args:
        days: ascending.
        series: a value a day for each model; None leaves a gap.
    """
    note = subtitle or "Each day's positives, against the index of the day before"
    figure, axes = canvas(f"Daily Recall@{k}", note, "Day", y_label=f"Recall@{k}")
    ends = {}
    for model, values in series.items():
        heights = np.array([np.nan if value is None else value for value in values], np.float64)
        axes.plot(
            np.array(days, "datetime64[D]"), heights, color=model_colour(model), marker="o", markersize=4.5, linewidth=2
        )
        if np.isfinite(heights).any():
            last = int(np.flatnonzero(np.isfinite(heights))[-1])
            ends[model] = (float(np.array(days, "datetime64[D]")[last].astype(np.int64)), float(heights[last]))
    date_axis(axes, days)
    percent_axis(axes)
    axes.set_ylim(
        0, 1.15 * max((height for line in axes.lines for height in finite_values(line.get_ydata())), default=1) or 1
    )
    name_line_ends(figure, axes, ends)
    return figure


def shares_by_day(days: Sequence[date], series: Mapping[str, Sequence[float | None]], title: str) -> Figure:
    """Draw shares by day, a line a name.

    Args:
        days: ascending.
        series: a share a day for each name; None leaves a gap.
    """
    figure, axes = canvas(title, "", "Day", y_label="Share")
    highest = _lines_by_day(axes, days, series)
    percent_axis(axes)
    axes.set_ylim(0, min(1.05, 1.15 * highest) or 1)
    return figure


def scores_by_day(days: Sequence[date], series: Mapping[str, Sequence[float | None]], title: str) -> Figure:
    """Draw inner products by day, a line a name, as ``shares_by_day`` draws shares."""
    figure, axes = canvas(title, "", "Day", y_label="Score")
    _lines_by_day(axes, days, series)
    return figure


def _lines_by_day(axes: Axes, days: Sequence[date], series: Mapping[str, Sequence[float | None]]) -> float:
    """Draw the lines, and return the highest value, 0 without any."""
    highest = 0.0
    for colour, (name, values) in zip(other_colours(), series.items(), strict=False):
        heights = np.array([np.nan if value is None else value for value in values], np.float64)
        axes.plot(np.array(days, "datetime64[D]"), heights, color=colour, marker="o", markersize=3, label=name)
        highest = max([highest, *finite_values(heights)])
    date_axis(axes, days)
    legend_below(axes, len(series))
    return highest


def counts_bar(
    days: Sequence[date], by_name: Mapping[str, Sequence[int]], title: str = "Events by day", unit: str = "Events"
) -> Figure:
    """Draw counts by day, stacked by name (such as events by event name).

    Args:
        days: ascending; if all are at least a week apart, each is the first day of a week.
        by_name: a count a day for each name.
    """
    apart = min(((after - before).days for before, after in pairwise(days)), default=1)
    period = "week" if apart >= 7 else "day"
    figure, axes = canvas(title, "", period.capitalize(), y_label=f"{unit} a {period}")
    bottom = np.zeros(len(days))
    for colour, (name, counts) in zip(other_colours(), by_name.items(), strict=False):
        top = bottom + np.asarray(counts, np.float64)
        axes.add_collection(_bars(days, bottom, top, width=0.8 * apart, facecolor=colour, label=name))
        bottom = top
    axes.xaxis_date()
    axes.autoscale_view()
    date_axis(axes, days)
    count_axis(axes)
    legend_below(axes, len(by_name))
    return figure


def _bars(
    days: Sequence[date], low: NDArray[np.float64], high: NDArray[np.float64], *, width: float, **look: Any
) -> PolyCollection:
    """Return a bar a day from ``low`` to ``high``, all in one artist: one artist a bar takes ten times as long."""
    middle = np.array(days, "datetime64[D]").astype(np.float64)  # days since 1970, as matplotlib counts
    left, right = middle - width / 2, middle + width / 2
    corners = np.array([[left, low], [left, high], [right, high], [right, low]])
    bars = PolyCollection(list(corners.transpose(2, 0, 1)), **look)
    bars.sticky_edges.y.append(0)  # no margin below
    return bars


def history_length_histogram(lengths: ArrayLike, subtitle: str = "") -> Figure:
    """Draw the number of users by number of events; long histories share buckets that double in width."""
    return _users_by("Users by length of history", subtitle, "Events in the history", lengths)


def state_age_histogram(days: ArrayLike, subtitle: str = "") -> Figure:
    """Draw the number of users by the age of their state in days."""
    return _users_by("Users by age of their state", subtitle, "Days since the last inference", days)


def _users_by(title: str, subtitle: str, axis: str, values: ArrayLike) -> Figure:
    """Draw the number of users in each bucket of whole numbers; buckets of large numbers double in width."""
    numbers = np.asarray(values, np.int64)
    figure, axes = canvas(title, subtitle, axis, y_label="Users")
    edges = [0, 1, 2, 3, 5, 9, 17, 33, 65, 129]
    edges = [edge for edge in edges if edge <= numbers.max(initial=0)]
    edges.append(int(numbers.max(initial=0)) + 1)
    counts, _ = np.histogram(numbers, edges)
    bars = axes.bar(range(len(counts)), counts, 0.86, color=MODEL_COLOURS["sequential"])
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8.5, color=QUIET)
    names = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    axes.set_xticks(range(len(counts)), names)
    count_axis(axes)
    return figure


def recall_interval_bars(by_model: Mapping[str, Interval], k: int, subtitle: str = "") -> Figure:
    """Draw Recall@K by model with its bootstrap interval, from top to bottom in the given order."""
    note = subtitle or "Whiskers: 95 % bootstrap interval over users"
    return interval_bars(by_model, f"Recall@{k} by model", f"Recall@{k}", subtitle=note)


def interval_bars(by_name: Mapping[str, Interval], title: str, axis: str, *, subtitle: str = "") -> Figure:
    """Draw shares with their intervals, from top to bottom in the given order."""
    figure, axes = canvas(title, subtitle, axis, y_label="", size=(8.2, 1.7 + 0.46 * len(by_name)))
    positions = np.arange(len(by_name))[::-1]
    furthest = 0.0
    for position, (model, interval) in zip(positions, by_name.items(), strict=True):
        axes.barh(position, interval.estimate, 0.66, color=model_colour(model))
        end = interval.estimate
        if np.isfinite(interval.low) and np.isfinite(interval.high):
            reach = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
            axes.errorbar(interval.estimate, position, xerr=reach, color=INK, capsize=3.5, linewidth=1.2)
            end = max(end, interval.high)
        axes.annotate(
            f"{100 * interval.estimate:.1f} %", (end, position), (7, 0), textcoords="offset points", va="center",
            fontsize=9, color=INK,
        )  # fmt: skip
        furthest = max(furthest, end)
    axes.set_yticks(positions, [model_label(model) for model in by_name], fontsize=9.5, color=INK)
    axes.set_xlim(0, 1.14 * furthest or 1)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(as_percent))
    return figure

"""Figures of reports and of asset metadata, in one style.

Figures are plain ``Figure`` objects: no pyplot, so nothing is global and any thread or process may draw.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # ml.metrics loads torch, which drawing does not need
    from ml.metrics import Interval

# A model has one name and one colour wherever it is drawn: greys for popularity, blues for the models without context.
MODEL_LABELS = {
    "popularity": "Popularity",
    "recent_popularity": "Recent popularity",
    "item_knn": "Item-kNN",
    "mean_pooling": "Mean pooling",
    "max_pooling": "Max pooling",
    "sequential": "Sequential, no context",
    "contextual": "Contextual",
    "oracle": "Oracle",
}
MODEL_COLOURS = {
    "popularity": "#9aa5b1",
    "recent_popularity": "#6b7683",
    "item_knn": "#d99a2b",
    "mean_pooling": "#7fb2de",
    "max_pooling": "#4f92c9",
    "sequential": "#2a6fb0",
    "contextual": "#d1435b",
    "oracle": "#2b9a82",
}
OTHER_COLOURS = ("#2a6fb0", "#d1435b", "#d99a2b", "#2b9a82", "#7a5aa6", "#8c6d5a", "#6b7683", "#7fb2de")
INK, QUIET, GRID = "#22303c", "#66727f", "#e4e8ec"
RESOLUTION = 130  # dots per inch
DIVERSITY = "Diversity: share of the catalogue that fills 90 % of all retrieved slots"


@dataclass(frozen=True)
class ContextLift:
    """One model with and without the context: recall, and the median relevance of candidates to the subject item."""

    recall_without: float
    recall_with: float
    relevance_without: float
    relevance_with: float


def recall_curve(by_model: Mapping[str, Mapping[int, float]], subtitle: str = "") -> Figure:
    """Recall against the list length K (log axis), one line a model, named at its end."""
    figure, axes = _canvas("Recall by list length", subtitle, "List length K", "Recall@K")
    for model, recall in by_model.items():
        ks = sorted(recall)
        axes.plot(
            ks,
            [recall[k] for k in ks],
            color=_colour(model),
            marker="o",
            markersize=4.5,
            linewidth=2.6 if model == "contextual" else 1.8,
            linestyle="--" if model == "oracle" else "-",
        )
    ticks = sorted({k for recall in by_model.values() for k in recall})
    axes.set_xscale("log")
    axes.set_xticks(_apart(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:,.0f}"))
    _percent(axes)
    axes.set_ylim(0, 1.08 * max(max(recall.values()) for recall in by_model.values()) or 1)
    _name_line_ends(figure, axes, {model: (max(recall), recall[max(recall)]) for model, recall in by_model.items()})
    return figure


def segment_bars(by_model: Mapping[str, pl.DataFrame], segment_name: str, k: int, subtitle: str = "") -> Figure:
    """Recall by segment, one bar a model.

    Args:
        by_model: frames of ``ml.metrics.recall_by_segment``; the segments stand in the first frame's order.
        segment_name: what the segments are, such as "History length (events)".
        k: list length of the recall, for the labels.
    """
    first = next(iter(by_model.values()))
    segments = first["segment"].to_list()
    figure, axes = _canvas(f"Recall@{k} by {_lower(segment_name)}", subtitle, segment_name, f"Recall@{k}")
    width = 0.8 / len(by_model)
    for position, (model, frame) in enumerate(by_model.items()):
        recall = dict(frame.select("segment", "recall").iter_rows())
        left = np.arange(len(segments)) - 0.4 + (position + 0.5) * width
        heights = [recall.get(segment, np.nan) for segment in segments]
        axes.bar(left, heights, width * 0.92, color=_colour(model), label=_label(model))
    counts = first["positives"].to_list()
    names = [f"{segment}\n{count:,} positives" for segment, count in zip(segments, counts, strict=True)]
    axes.set_xticks(range(len(segments)), names)
    _percent(axes)
    _legend(axes, len(by_model))
    return figure


def diversity_scatter(points: Mapping[str, tuple[float, float]], k: int = 100, subtitle: str = "") -> Figure:
    """Diversity against recall: one named point a model, (diversity90, recall@K)."""
    note = subtitle or "Up and to the right is better"
    figure, axes = _canvas(f"Diversity and Recall@{k} by model", note, DIVERSITY, f"Recall@{k}")
    for model, (diversity, recall) in points.items():
        axes.scatter(diversity, recall, s=110, color=_colour(model), edgecolor="white", linewidth=1.2, zorder=3)
    axes.set_xlim(0, 1.25 * max(diversity for diversity, _ in points.values()) or 1)
    axes.set_ylim(0, 1.15 * max(recall for _, recall in points.values()) or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(_as_percent))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    _percent(axes)
    _name_line_ends(figure, axes, points)
    return figure


def pareto_scatter(
    points: Mapping[str, tuple[float, float]], front: Sequence[str], k: int = 100, subtitle: str = ""
) -> Figure:
    """Diversity against recall: one labelled point a setting, (diversity90, recall@K), and a line through ``front``."""
    figure, axes = _canvas(f"Diversity and Recall@{k}: the front", subtitle, DIVERSITY, f"Recall@{k}")
    _percent(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(_as_percent))
    axes.plot(*np.array(sorted(points[label] for label in front)).T, color=MODEL_COLOURS["contextual"], linewidth=1.8)
    for label, place in points.items():
        colour = MODEL_COLOURS["contextual" if label in front else "popularity"]
        axes.scatter(*place, s=80, color=colour, edgecolor="white", linewidth=1.2, zorder=3)
        axes.annotate(label, place, (7, 6), textcoords="offset points", fontsize=9, color=INK)
    axes.margins(0.16)
    axes.autoscale()  # the points lie close together: an axis from zero would hide their differences
    return figure


def context_bars(by_model: Mapping[str, ContextLift], k: int, subtitle: str = "") -> Figure:
    """Recall with and without context, and how relevant the candidates are to the subject item, side by side."""
    figure = Figure(figsize=(9.6, 4.6), dpi=RESOLUTION, facecolor="white")
    _titles(figure, "What the context adds", subtitle)
    panels = figure.subplots(1, 2)
    names = [_label(model) for model in by_model]
    lifts = list(by_model.values())
    recall = ([lift.recall_without for lift in lifts], [lift.recall_with for lift in lifts])
    relevance = ([lift.relevance_without for lift in lifts], [lift.relevance_with for lift in lifts])
    _dress(panels[0], "", f"Recall@{k}")
    _pairs_of_bars(panels[0], names, recall, lambda value: f"{100 * value:.1f} %")
    _percent(panels[0])
    _dress(panels[1], "", "Median relevance to the subject (cosine)")
    _pairs_of_bars(panels[1], names, relevance, lambda value: f"{value:.2f}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def daily_recall_curve(
    days: Sequence[date], series: Mapping[str, Sequence[float | None]], k: int = 100, subtitle: str = ""
) -> Figure:
    """Prequential recall by day: each day's positives against models and indexes of the day before.

    Args:
        days: ascending.
        series: a value a day for each model; None leaves a gap.
    """
    note = subtitle or "Each day's positives, against the index of the day before"
    figure, axes = _canvas(f"Daily Recall@{k}", note, "Day", f"Recall@{k}")
    ends = {}
    for model, values in series.items():
        heights = np.array([np.nan if value is None else value for value in values], np.float64)
        axes.plot(
            np.array(days, "datetime64[D]"), heights, color=_colour(model), marker="o", markersize=4.5, linewidth=2
        )
        if np.isfinite(heights).any():
            last = int(np.flatnonzero(np.isfinite(heights))[-1])
            ends[model] = (float(np.array(days, "datetime64[D]")[last].astype(np.int64)), float(heights[last]))
    _dates(axes, days)
    _percent(axes)
    axes.set_ylim(
        0, 1.15 * max((height for line in axes.lines for height in _finite(line.get_ydata())), default=1) or 1
    )
    _name_line_ends(figure, axes, ends)
    return figure


def counts_bar(
    days: Sequence[date], by_name: Mapping[str, Sequence[int]], title: str = "Events by day", unit: str = "Events"
) -> Figure:
    """Counts by day, stacked by name (such as events by event name).

    Args:
        days: ascending; where the nearest two are a week or more apart they are the first days of weeks.
        by_name: a count a day for each name.
    """
    apart = min(((after - before).days for before, after in pairwise(days)), default=1)
    period = "week" if apart >= 7 else "day"
    figure, axes = _canvas(title, "", period.capitalize(), f"{unit} a {period}")
    bottom = np.zeros(len(days))
    for colour, (name, counts) in zip(_colours(), by_name.items(), strict=False):
        axes.bar(np.array(days, "datetime64[D]"), counts, 0.8 * apart, bottom=bottom, color=colour, label=name)
        bottom += np.asarray(counts, np.float64)
    _dates(axes, days)
    _counts(axes)
    _legend(axes, len(by_name))
    return figure


def history_length_histogram(lengths: ArrayLike, subtitle: str = "") -> Figure:
    """How many users have how many events; long histories share buckets that double in width."""
    return _users_by("Users by length of history", subtitle, "Events in the history", lengths)


def state_age_histogram(days: ArrayLike, subtitle: str = "") -> Figure:
    """How many users have a state of how many days ago."""
    return _users_by("Users by age of their state", subtitle, "Days since the last inference", days)


def _users_by(title: str, subtitle: str, axis: str, values: ArrayLike) -> Figure:
    """Users a bucket of whole numbers; buckets of large ones double in width."""
    numbers = np.asarray(values, np.int64)
    figure, axes = _canvas(title, subtitle, axis, "Users")
    edges = [0, 1, 2, 3, 5, 9, 17, 33, 65, 129]
    edges = [edge for edge in edges if edge <= numbers.max(initial=0)]
    edges.append(int(numbers.max(initial=0)) + 1)
    counts, _ = np.histogram(numbers, edges)
    bars = axes.bar(range(len(counts)), counts, 0.86, color=MODEL_COLOURS["sequential"])
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8.5, color=QUIET)
    names = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    axes.set_xticks(range(len(counts)), names)
    _counts(axes)
    return figure


def recall_interval_bars(by_model: Mapping[str, Interval], k: int, subtitle: str = "") -> Figure:
    """Recall@K by model with its bootstrap interval, from top to bottom in the order given."""
    note = subtitle or "Whiskers: 95 % bootstrap interval over users"
    figure, axes = _canvas(f"Recall@{k} by model", note, f"Recall@{k}", "", size=(8.2, 1.7 + 0.46 * len(by_model)))
    positions = np.arange(len(by_model))[::-1]
    furthest = 0.0
    for position, (model, interval) in zip(positions, by_model.items(), strict=True):
        axes.barh(position, interval.estimate, 0.66, color=_colour(model))
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
    axes.set_yticks(positions, [_label(model) for model in by_model], fontsize=9.5, color=INK)
    axes.set_xlim(0, 1.14 * furthest or 1)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(_as_percent))
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)  # the canvas that draws without a display
    figure.savefig(stream, format="png")
    return stream.getvalue()


def to_markdown_image(figure: Figure, description: str = "figure") -> str:
    """The figure as a Markdown image that carries its own data, for Dagster's metadata."""
    safe = description.replace("[", "(").replace("]", ")")
    return f"![{safe}](data:image/png;base64,{base64.b64encode(png(figure)).decode()})"


def _canvas(
    title: str, subtitle: str, x_label: str, y_label: str, size: tuple[float, float] = (8.2, 4.6)
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=RESOLUTION, facecolor="white")
    _titles(figure, title, subtitle)
    axes = figure.subplots()
    _dress(axes, x_label, y_label)
    return figure, axes


def _titles(figure: Figure, title: str, subtitle: str) -> None:
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    figure.suptitle(title, x=0.015, ha="left", fontsize=13.5, fontweight="bold", color=INK)
    if subtitle:
        # The empty second line of the title makes the layout leave room for the subtitle.
        figure.suptitle(f"{title}\n", x=0.015, ha="left", fontsize=13.5, fontweight="bold", color=INK)
        inches = figure.get_size_inches()[1]
        figure.text(0.015, 1 - 0.42 / inches, subtitle, ha="left", va="top", fontsize=9.5, color=QUIET)


def _dress(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=9.5, color=QUIET, labelpad=7)
    axes.set_ylabel(y_label, fontsize=9.5, color=QUIET, labelpad=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b8c0c8")
    axes.tick_params(length=0, labelsize=9, labelcolor=QUIET, pad=5)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _percent(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(_as_percent))
    axes.set_ylim(bottom=0)


def _as_percent(share: float, _: object) -> str:
    return f"{round(100 * share, 6):g} %"


def _counts(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _dates(axes: Axes, days: Sequence[date]) -> None:
    if len(days) <= 10:
        axes.set_xticks(np.array(days, "datetime64[D]"), [f"{day.day} {day:%b}" for day in days])
        return
    dates: Any = AutoDateLocator, ConciseDateFormatter  # both untyped in matplotlib
    locator = dates[0](maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates[1](locator))


def _legend(axes: Axes, entries: int) -> None:
    axes.figure.legend(
        loc="outside lower center", ncols=min(entries, 4), frameon=False, fontsize=9, labelcolor=INK, handlelength=1.1
    )


def _pairs_of_bars(
    axes: Axes, names: Sequence[str], values: tuple[Sequence[float], Sequence[float]], text: Callable[[float], str]
) -> None:
    styles = (("Without context", "#b9c3cd", -0.2), ("With context", MODEL_COLOURS["contextual"], 0.2))
    for heights, (label, colour, shift) in zip(values, styles, strict=True):
        bars = axes.bar(np.arange(len(names)) + shift, heights, 0.37, color=colour, label=label)
        axes.bar_label(bars, [text(height) for height in heights], padding=3, fontsize=8.5, color=INK)
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.12)
    axes.set_xlim(-0.75, len(names) - 0.25)


def _name_line_ends(figure: Figure, axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """The models' names to the right of their last points, moved apart where they would overlap."""
    height_in_points = 72 * figure.get_size_inches()[1] * 0.72  # about what the axes take
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda model: ends[model][1])
    wanted = np.array([(ends[model][1] - low) / (high - low) * height_in_points for model in order])
    for model, true, place in zip(order, wanted, _spread(wanted, 13.0), strict=True):
        axes.annotate(
            _label(model), ends[model], (11, place - true), textcoords="offset points", va="center", fontsize=9,
            color=_colour(model), fontweight="bold" if model == "contextual" else "normal",
        )  # fmt: skip


def _spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Ascending places at least ``gap`` apart, as near to the wanted ones as pushing neighbours apart leaves them."""
    places = wanted.copy()
    for _ in range(200):
        overlap = np.maximum(gap - np.diff(places), 0)
        if not len(overlap) or overlap.max() < 0.1:
            break
        places[:-1] -= overlap / 2
        places[1:] += overlap / 2
    return places


def _apart(ticks: Sequence[int]) -> list[int]:
    """Ticks for a log axis without those that would touch the one before."""
    kept = list(ticks[:1])
    kept += [tick for before, tick in pairwise(ticks) if tick / before > 1.3]
    return kept


def _finite(values: object) -> Iterator[float]:
    return (value for value in np.asarray(values, np.float64) if np.isfinite(value))


def _colours() -> Iterator[str]:
    while True:
        yield from OTHER_COLOURS


def _colour(model: str) -> str:
    """A known model's own colour; for any other name always the same one of the others."""
    return MODEL_COLOURS.get(model) or OTHER_COLOURS[sum(model.encode()) % len(OTHER_COLOURS)]


def _label(model: str) -> str:
    return MODEL_LABELS.get(model, model.replace("_", " ").capitalize())


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]

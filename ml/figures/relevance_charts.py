"""The figures of relevance: calibration, the funnel by category, the gap to the holdout, and the seasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ml.evaluation.intervals import Interval
from ml.figures.style import (
    INK,
    OTHER_COLOURS,
    QUIET,
    as_percent,
    canvas,
    date_axis,
    dress,
    finite_values,
    put_titles,
    sheet,
    spread,
)
from ml.relevance.candidates import FEWEST_REQUESTS

SHOWN_GROUPS = len(OTHER_COLOURS)
"""Groups that a figure can tell apart; those with the most candidates are drawn."""
ALL = "All"
AXES = ("score", "target")
FEWEST_LABELS = 100


def calibration_curves(by_model: Mapping[str, Mapping[str, pl.DataFrame]], subtitle: str = "") -> Figure:
    """Draw the reliability curves of content types, a panel a model, such as before and after a feature came back.

    Args:
        by_model: title of the panel -> content type -> score, target (mean label, 0 to 1), labels; ascending scores. A
            calibrated score lies on the diagonal. A curve of fewer than ``FEWEST_LABELS`` is left out: it shows chance.
    """
    drawn = {
        title: {name: curve for name, curve in curves.items() if curve["labels"].sum() >= FEWEST_LABELS}
        for title, curves in by_model.items()
    }
    figure = sheet((1.2 + 4.2 * len(drawn), 4.8))
    put_titles(figure, "Calibration by content type", subtitle)
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    names = list(dict.fromkeys(name for curves in drawn.values() for name in curves))
    ends = [curve[["score", "target"]].max_horizontal().max() for curves in drawn.values() for curve in curves.values()]
    top = 1.05 * max(finite_values(ends), default=1.0)
    for axes, (title, curves) in zip(panels, drawn.items(), strict=True):
        dress(axes, "Predicted relevance", "Mean label, 0 to 1")
        axes.set_title(title, fontsize=10.5, color=INK, loc="left")
        axes.plot([0, top], [0, top], color=QUIET, linewidth=1, linestyle=":", label="Calibrated")
        for name, curve in curves.items():
            size = 4 + 26 * np.sqrt(curve["labels"].to_numpy() / max(int(curve["labels"].max() or 1), 1))  # type: ignore[arg-type]
            colour = OTHER_COLOURS[names.index(name) % SHOWN_GROUPS]
            axes.plot(curve["score"], curve["target"], color=colour, linewidth=1.8, label=name)
            axes.scatter(curve["score"], curve["target"], s=size, color=colour, zorder=3)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_aspect("equal")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    return figure


def funnel_chart(fractions: pl.DataFrame, segment: str, subtitle: str = "") -> Figure:
    """Draw the fraction relevant at each stage, a line a group of the segment, and all candidates as a thick line.

    A group is drawn up to the last stage that candidates of ``FEWEST_REQUESTS`` requests have reached.

    Args:
        fractions: of ``ml.relevance.funnel_fractions.funnel_fractions``.
        segment: ``category``, ``content_type`` or ``surface``.
    """
    title = f"Fraction relevant through the funnel, by {segment.replace('_', ' ')}"
    figure, axes = canvas(title, subtitle, "Stage reached", y_label="Fraction relevant", size=(9.2, 5.0))
    stages = fractions.filter(segment="all")["stage"].to_list()
    of_segment = fractions.filter((pl.col("segment") == segment) & pl.col("stage").is_in(stages))
    groups = of_segment.filter(stage=stages[0]).sort("candidates", descending=True)["group"].head(SHOWN_GROUPS)
    drawn = {"": fractions.filter(segment="all"), **{name: of_segment.filter(group=name) for name in groups.sort()}}
    ends: dict[str, tuple[float, float, str]] = {}
    for number, (name, all_rows) in enumerate(drawn.items()):
        rows = all_rows.filter(pl.col("requests") >= FEWEST_REQUESTS) if name else all_rows
        if rows.is_empty():
            continue
        colour = OTHER_COLOURS[number - 1] if name else INK
        place = [stages.index(stage) for stage in rows["stage"]]
        axes.plot(place, rows["fraction"], color=colour, linewidth=1.6 if name else 3, marker="o", markersize=4)
        low, high = (rows[bound].cast(pl.Float64).fill_null(np.nan) for bound in ("low", "high"))
        if not name:
            axes.fill_between(place, low, high, color=colour, alpha=0.12, linewidth=0)
        ends[name or ALL] = (place[-1], rows["fraction"][-1], colour)
    axes.set_xticks(range(len(stages)), stages)
    axes.set_xlim(-0.25, len(stages) + 0.35)
    _shares(axes)
    _name_ends(figure, axes, ends)
    return figure


def gap_by_day(days: Sequence[date], gaps: Mapping[str, Sequence[Interval | None]], subtitle: str = "") -> Figure:
    """Draw the relative difference of production to the holdout by day, a line a surface with its 95 % interval.

    Args:
        days: ascending. gaps: an interval a day for each surface; None leaves a gap.
    """
    note = subtitle or "Fraction relevant of the first ten: production over holdout, less 1"
    figure, axes = canvas("Gap to the holdout by day", note, "Day", y_label="Relative difference")
    when, ends = np.array(days, "datetime64[D]"), {}
    for number, (name, found) in enumerate(gaps.items()):
        middle, low, high = (
            np.array([np.nan if each is None else getattr(each, bound) for each in found], np.float64)
            for bound in ("estimate", "low", "high")
        )
        colour = OTHER_COLOURS[number % SHOWN_GROUPS]
        axes.plot(when, middle, color=colour, marker="o", markersize=4, linewidth=2)
        axes.fill_between(when.astype(np.float64), low, high, color=colour, alpha=0.18, linewidth=0)
        reach = [middle - low, high - middle]
        axes.errorbar(when.astype(np.float64), middle, reach, color=colour, fmt="none", linewidth=1)
        known = np.flatnonzero(np.isfinite(middle))
        if len(known):
            ends[name] = (float(when[known[-1]].astype(np.int64)), float(middle[known[-1]]), colour)
    date_axis(axes, days)
    axes.axhline(0, color=QUIET, linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(as_percent))
    axes.margins(x=0.12)
    _name_ends(figure, axes, ends)
    return figure


def seasons_chart(weeks: pl.DataFrame, subtitle: str = "") -> Figure:
    """Draw the fraction relevant and the inventory of each category over the weeks, side by side.

    Args:
        weeks: week (its first day), category, fraction (null: not known), inventory (ads that could be shown).
    """
    figure = sheet((11.6, 4.8))
    put_titles(figure, "Seasons: fraction relevant and inventory by category", subtitle)
    panels = figure.subplots(1, 2)
    largest = weeks.group_by("category").agg(pl.col("inventory").sum()).sort("inventory", "category", descending=True)
    names = largest["category"].head(SHOWN_GROUPS).sort().to_list()
    days = weeks["week"].unique().sort().to_list()
    for axes, column, label in zip(panels, ("fraction", "inventory"), ("Fraction relevant", "Ads"), strict=True):
        dress(axes, "Week", label)
        for colour, name in zip(OTHER_COLOURS, names, strict=False):
            rows = weeks.filter(category=name).sort("week")
            height = rows[column].cast(pl.Float64).fill_null(np.nan)
            axes.plot(rows["week"], height, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=name)
        date_axis(axes, days)
        axes.set_ylim(bottom=0)
    _shares(panels[0])
    panels[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def watched_shares(days: Sequence[date], shares: Mapping[str, Sequence[float | None]], what: str) -> Figure:
    """Draw a watched share by day, such as the coverage of features, a line a name with the name at its end."""
    figure, axes = canvas(what, "", "Day", y_label="Share of the candidates")
    when, ends = np.array(days, "datetime64[D]"), {}
    for number, (name, values) in enumerate(shares.items()):
        heights = np.array([np.nan if value is None else value for value in values], np.float64)
        colour = OTHER_COLOURS[number % SHOWN_GROUPS]
        axes.plot(when, heights, color=colour, marker="o", markersize=3.5, linewidth=1.6)
        known = np.flatnonzero(np.isfinite(heights))
        if len(known):
            ends[name] = (float(when[known[-1]].astype(np.int64)), float(heights[known[-1]]), colour)
    date_axis(axes, days)
    _shares(axes)
    axes.margins(x=0.16)
    _name_ends(figure, axes, ends)
    return figure


def _shares(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(as_percent))
    axes.set_ylim(bottom=0)


def _name_ends(figure: Figure, axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Write names to the right of the last points (x, y, colour), moved apart where the names would overlap."""
    if not ends:
        return
    height_in_points = 72 * figure.get_size_inches()[1] * 0.72  # about what the axes take
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][1])
    wanted = np.array([(ends[name][1] - low) / (high - low) * height_in_points for name in order])
    for name, true, place in zip(order, wanted, spread(wanted, 12.0), strict=True):
        x, y, colour = ends[name]
        axes.annotate(
            name, (x, y), (9, place - true), textcoords="offset points", va="center", fontsize=8.5, color=colour,
            fontweight="bold" if name == ALL else "normal",
        )  # fmt: skip

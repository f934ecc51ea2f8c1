"""The look of figures: one canvas, one set of colours and names for models, axes, legends, and the file of a figure.

Figures are plain ``Figure`` objects: no pyplot, so nothing is global and any thread or process may draw.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import MONTHLY, AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ml.evaluation.model_names import LABELS, ListArm, ModelName

# A model has one colour wherever it is drawn: greys for popularity, warm ones for the other baselines, blues for the
# models without context.
MODEL_COLOURS: Mapping[str, str] = {
    ModelName.popularity: "#9aa5b1",
    ModelName.recent_popularity: "#6b7683",
    ModelName.item_knn: "#d99a2b",
    ModelName.rule: "#8c6d5a",
    ModelName.parts: "#7a5aa6",
    ModelName.mean_pooling: "#7fb2de",
    ModelName.max_pooling: "#4f92c9",
    ModelName.sequential: "#2a6fb0",
    ModelName.sequential_appended: "#1b4a78",
    ModelName.contextual_without_context: "#e8a5b0",
    ModelName.contextual: "#d1435b",
    ModelName.contextual_cross_attention: "#a3243b",
    ListArm.advertiser_lists: "#b8a13a",
    ListArm.with_contextual: "#c46a3f",
    ModelName.oracle: "#2b9a82",
}
OTHER_COLOURS = ("#2a6fb0", "#d1435b", "#d99a2b", "#2b9a82", "#7a5aa6", "#8c6d5a", "#6b7683", "#7fb2de")
INK, QUIET, GRID = "#22303c", "#66727f", "#e4e8ec"
RESOLUTION = 130  # dots per inch


_DRAWN: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file. A figure is drawn once as long as nothing in it changes."""
    if figure not in _DRAWN or figure.stale:
        stream = io.BytesIO()
        # The canvas draws without a display, and once: ``savefig`` goes through the figure twice.
        FigureCanvasAgg(figure).print_png(stream)  # type: ignore[no-untyped-call]
        _DRAWN[figure] = stream.getvalue()
        figure.stale = False  # what changes a part of the figure makes the figure stale again
    return _DRAWN[figure]


def to_markdown_image(figure: Figure, description: str = "figure") -> str:
    """Return the figure as a Markdown image that carries its own data, for Dagster's metadata."""
    safe = description.replace("[", "(").replace("]", ")")
    return f"![{safe}](data:image/png;base64,{base64.b64encode(png(figure)).decode()})"


def canvas(
    title: str, subtitle: str, x_label: str, *, y_label: str, size: tuple[float, float] = (8.2, 4.6)
) -> tuple[Figure, Axes]:
    """Return an empty figure with its titles, and its axes. ``size`` is in inches."""
    figure = sheet(size)
    put_titles(figure, title, subtitle)
    axes = figure.subplots()
    dress(axes, x_label, y_label)
    return figure, axes


def sheet(size: tuple[float, float]) -> Figure:
    """Return an empty figure of ``size`` in inches."""
    return Figure(figsize=size, dpi=RESOLUTION, facecolor="white")


def put_titles(figure: Figure, title: str, subtitle: str) -> None:
    """Put a title on the figure, and below the title a quiet line where ``subtitle`` has text."""
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    figure.suptitle(title, x=0.015, ha="left", fontsize=13.5, fontweight="bold", color=INK)
    if subtitle:
        # The empty second line of the title makes the layout leave room for the subtitle.
        figure.suptitle(f"{title}\n", x=0.015, ha="left", fontsize=13.5, fontweight="bold", color=INK)
        inches = figure.get_size_inches()[1]
        figure.text(0.015, 1 - 0.42 / inches, subtitle, ha="left", va="top", fontsize=9.5, color=QUIET)


def dress(axes: Axes, x_label: str, y_label: str) -> None:
    """Give the axes the labels and the grid of the common style."""
    axes.set_xlabel(x_label, fontsize=9.5, color=QUIET, labelpad=7)
    axes.set_ylabel(y_label, fontsize=9.5, color=QUIET, labelpad=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b8c0c8")
    axes.tick_params(length=0, labelsize=9, labelcolor=QUIET, pad=5)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def percent_axis(axes: Axes) -> None:
    """Show shares on the y axis, from 0."""
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(as_percent))
    axes.set_ylim(bottom=0)


def as_percent(share: float, _: object) -> str:
    """Return a share as the text of a tick; the position is not needed."""
    return f"{round(100 * share, 6):g} %"


def count_axis(axes: Axes) -> None:
    """Show whole numbers on the y axis."""
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def date_axis(axes: Axes, days: Sequence[date]) -> None:
    """Show days on the x axis: each day where there are few."""
    if len(days) <= 10:
        axes.set_xticks(np.array(days, "datetime64[D]"), [f"{day.day} {day:%b}" for day in days])
        return
    dates: Any = AutoDateLocator, ConciseDateFormatter  # both untyped in matplotlib
    locator = dates[0](maxticks=9)
    locator.intervald[MONTHLY] = [1, 2, 3, 4, 6, 12]  # matplotlib has no interval for four and a half to five years
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates[1](locator))


def legend_below(axes: Axes, entries: int) -> None:
    """Put the legend outside, below the axes."""
    axes.figure.legend(
        loc="outside lower center", ncols=min(entries, 4), frameon=False, fontsize=9, labelcolor=INK, handlelength=1.1
    )


def pairs_of_bars(
    axes: Axes, names: Sequence[str], values: tuple[Sequence[float], Sequence[float]], text: Callable[[float], str]
) -> None:
    """Draw two bars a name, without and with the context; ``text`` returns the text on a bar."""
    styles = (("Without context", "#b9c3cd", -0.2), ("With context", MODEL_COLOURS["contextual"], 0.2))
    for heights, (label, colour, shift) in zip(values, styles, strict=True):
        bars = axes.bar(np.arange(len(names)) + shift, heights, 0.37, color=colour, label=label)
        axes.bar_label(bars, [text(height) for height in heights], padding=3, fontsize=8.5, color=INK)
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.12)
    axes.set_xlim(-0.75, len(names) - 0.25)


def name_line_ends(figure: Figure, axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the models' names to the right of their last points, moved apart where the names would overlap."""
    height_in_points = 72 * figure.get_size_inches()[1] * 0.72  # about what the axes take
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda model: ends[model][1])
    wanted = np.array([(ends[model][1] - low) / (high - low) * height_in_points for model in order])
    for model, true, place in zip(order, wanted, spread(wanted, 13.0), strict=True):
        axes.annotate(
            model_label(model), ends[model], (11, place - true), textcoords="offset points", va="center", fontsize=9,
            color=model_colour(model), fontweight="bold" if model == "contextual" else "normal",
        )  # fmt: skip


def spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Return ascending places at least ``gap`` apart, near to the wanted ones: neighbours push each other apart."""
    places = wanted.copy()
    for _ in range(200):
        overlap = np.maximum(gap - np.diff(places), 0)
        if not len(overlap) or overlap.max() < 0.1:
            break
        places[:-1] -= overlap / 2
        places[1:] += overlap / 2
    return places


def ticks_apart(ticks: Sequence[int]) -> list[int]:
    """Return the ticks of a log axis without those that would touch the tick before."""
    kept = list(ticks[:1])
    kept += [tick for before, tick in pairwise(ticks) if tick / before > 1.3]
    return kept


def finite_values(values: object) -> Iterator[float]:
    """Return the finite ones of ``values``."""
    return (value for value in np.asarray(values, np.float64) if np.isfinite(value))


def other_colours() -> Iterator[str]:
    """Yield the colours for everything that is no model, again and again."""
    while True:
        yield from OTHER_COLOURS


def model_colour(model: str) -> str:
    """Return a known model's own colour; for any other name, always the same one of the other colours."""
    return MODEL_COLOURS.get(model) or OTHER_COLOURS[sum(model.encode()) % len(OTHER_COLOURS)]


def model_label(model: str) -> str:
    """Return a model's name in the form for people."""
    label = LABELS.get(model, model.replace("_", " "))
    return label[:1].upper() + label[1:]


def lower_first(text: str) -> str:
    """Return ``text`` with a small first letter."""
    return text[:1].lower() + text[1:]

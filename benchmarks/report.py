"""Tables of measurements: on the terminal, and between the markers of docs/performance.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table as RichTable

PERFORMANCE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
GIBIBYTE = 2**30


@dataclass(frozen=True)
class Target:
    """A limit that a figure is held against."""

    value: float
    limit: float
    at_least: bool
    text: str

    def __str__(self) -> str:
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        return f"{self.text} {'met' if met else 'missed'}"


@dataclass(frozen=True)
class Table:
    """The result of one benchmark. Each row has one text a column; the first column names the measured quantity.

    Attributes:
        headlines: figures of ``benchmarks.headlines``, by the name of the work.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    headlines: Mapping[str, str] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """Print the table and its notes."""
        rich = RichTable(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            rich.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            rich.add_row(*row)
        console.print(rich)
        for note in self.notes:
            console.print(f"  {note}", highlight=False)

    def markdown(self) -> str:
        """Return the table as Markdown with notes below."""
        lines = [
            f"**{self.title}**",
            "",
            _markdown_row(self.columns),
            _markdown_row(["---"] + ["---:"] * (len(self.columns) - 1)),
            *(_markdown_row(row) for row in self.rows),
        ]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]).rstrip()


def at_least(value: float, limit: float, unit: str = "") -> str:
    """Return ``≥ limit`` and a mark that says whether ``value`` meets the limit."""
    return str(Target(value, limit, True, f"≥ {limit:,g}{unit}"))


def at_most(value: float, limit: float, unit: str = "") -> str:
    """Return ``≤ limit`` and a mark that says whether ``value`` meets the limit."""
    return str(Target(value, limit, False, f"≤ {limit:,g}{unit}"))


def machine() -> str:
    """Return cores, memory, versions, and the load before the measurement."""
    limited = os.environ.get("OMP_NUM_THREADS")
    threads = f", OMP_NUM_THREADS={limited}" if limited else ""
    memory = psutil.virtual_memory().total / GIBIBYTE
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}{threads}; "
        f"load average before: {os.getloadavg()[0]:.1f}"
    )


def rewrite(name: str, table: Table, where: str, path: Path = PERFORMANCE) -> None:
    """Replace the text between the markers of benchmark ``name`` in the page.

    Args:
        where: the machine, as it was before the measurement.

    Raises:
        ValueError: the page lacks the markers.
    """
    when = datetime.now(UTC).date().isoformat()
    stamp = f"`python -m benchmarks {name}`, {when}, on {where}."
    replace_block(name, f"{table.markdown()}\n\n{stamp}", path)


def block_of(name: str, path: Path = PERFORMANCE) -> str:
    """Return the text between the markers of block ``name``.

    Raises:
        ValueError: the page lacks the markers.
    """
    begin, end = f"<!-- {name}: written by make bench -->", f"<!-- {name}: end -->"
    page = path.read_text()
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
        raise ValueError(f"{path} must hold the line {begin!r} and, after it, the line {end!r} once each: add them.")
    return page[page.index(begin) + len(begin) : page.index(end)].strip()


def replace_block(name: str, text: str, path: Path = PERFORMANCE) -> None:
    """Write ``text`` between the markers of block ``name``.

    Raises:
        ValueError: the page lacks the markers.
    """
    block_of(name, path)
    begin, end = f"<!-- {name}: written by make bench -->", f"<!-- {name}: end -->"
    before, _, rest = path.read_text().partition(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def _markdown_row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")

"""The table at the top of docs/performance.md: what each work took before it was made fast, what it takes, its aim.

A benchmark gives its headline figures by name of the work; each row keeps the figure and the date of its last run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.report import PERFORMANCE, Table, block_of, replace_block

BEFORE = "dfbb078"  # the commit of the column
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Work:
    """A row: the work with its unit, its figure at ``BEFORE``, its aim, and the benchmark that measures it."""

    name: str
    before: str
    aim: str
    benchmark: str


WORKS = (
    Work("a real fit, pairs/s", "1,525", "≥ 2,500", "training"),
    Work("matrix products, of a training step: its limit", "", "", "training"),
    Work("encoder, users/s, float32", "8,217", "≥ 12,000", "inference"),
    Work("encoder, users/s, bfloat16", "9,421", "≥ 14,000", "inference"),
    Work("a request beside an item at 200/s, CPU ms", "4.6 to 5.5", "≤ 1.5", "serving"),
    Work("requests/s of one process, at most", "159 to 263", "≥ 500", "serving"),
    Work("p99 at 200/s in five runs, ms", "6.8 to 337", "≤ 10 in each", "serving"),
    Work("export of all users' lists, of FAISS alone", "1.9 ×", "≤ 1.3 ×", "export"),
    Work("a small day, CPU seconds", "27.8", "≤ 12", "small-day"),
    Work("a small day, MiB at the peak", "949", "≤ 600", "small-day"),
    Work("item features of a day, seconds a million events of history", ".54", "≤ .2", "growth"),
    Work("the largest step at 1 M users and 20 M events, MiB", "5,128 and more", "≤ 2,048", "memory"),
    Work("sequences at 20 M events, of DuckDB's floor", "1.56 ×", "≤ 1.3 ×", "data"),
    Work("ingestion at 20 M events, events/s", "458,719 to 545,000", "≥ 700,000", "data"),
)


def record(headlines: Mapping[str, str], path: Path = PERFORMANCE) -> None:
    """Write the figures of one benchmark into the rows of their works.

    Raises:
        KeyError: a headline names no work.
        ValueError: the page lacks the markers.
    """
    unknown = headlines.keys() - {work.name for work in WORKS}
    if unknown:
        raise KeyError(f"no row of the table of headlines is called {sorted(unknown)[0]!r}; add it to WORKS")
    kept = _rows(block_of("headlines", path))
    today = datetime.now(UTC).date().isoformat()
    rows = []
    for work in WORKS:
        now, when = kept.get(work.name, (NOT_MEASURED, ""))
        if work.name in headlines:
            now, when = headlines[work.name], f"`python -m benchmarks {work.benchmark}`, {today}"
        rows.append((work.name, work.before, now, work.aim, when))
    table = Table("Before and now", ("work", f"before ({BEFORE})", "now", "aim", "command and date"), tuple(rows))
    replace_block("headlines", table.markdown(), path)


def _rows(block: str) -> dict[str, tuple[str, str]]:
    """Return the figure, and the command and date, of each work in the Markdown of the table."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line[:1] == "|"]
    return {row[0]: (row[2], row[4]) for row in cells}

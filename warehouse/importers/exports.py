"""A file of an export, whatever its format: its columns as text, batch by batch, each row with its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from warehouse.importers.landing_writer import SourceError
from warehouse.ingest.read import SOURCE_FILE, SOURCE_ROW

SHOWN_LINES = 5
_MAXIMUM_REJECTED = 0.05  # of a file's lines; above it the file is read wrongly, or is no table


@dataclass
class Rejected:
    """The lines of export files that are no rows."""

    lines: dict[Path, dict[int, str]] = field(default_factory=dict)  # reason by line

    def add(self, path: Path, line: int, reason: str) -> None:
        """Note a line. A line counts once, however often its file is read."""
        self.lines.setdefault(path, {})[line] = reason

    def described(self) -> list[str]:
        """Return a sentence for each file that has such lines."""
        return [_sentence(path, lines) for path, lines in self.lines.items()]

    def stop_if_too_many(self, path: Path, rows: int) -> None:
        """Refuse a file with too many such lines.

        Raises:
            SourceError: more than 5 % of the file's lines are no rows.
        """
        lines = self.lines.get(path, {})
        if len(lines) > _MAXIMUM_REJECTED * (rows + len(lines)):
            raise SourceError(
                f"{_sentence(path, lines)}. That is more than {_MAXIMUM_REJECTED:.0%} of the file: correct the export."
            )


def _sentence(path: Path, lines: dict[int, str]) -> str:
    shown = "; ".join(f"line {line}: {lines[line]}" for line in sorted(lines)[:SHOWN_LINES])
    more = f"; and {len(lines) - SHOWN_LINES:,} more" if len(lines) > SHOWN_LINES else ""
    verb = "line is no row and is" if len(lines) == 1 else "lines are no rows and are"
    return f"{path}: {len(lines):,} {verb} left out: {shown}{more}"


class Export(Protocol):
    """A file of an export.

    Attributes:
        path: the path as the user gave it.
        names: the names of the columns.
        encoding: the encoding of the text; empty for Parquet.
        may_leave_out: whether a row may leave out a column, so that a column may be in no row.
    """

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def encoding(self) -> str: ...

    @property
    def may_leave_out(self) -> bool: ...

    def batches(self, rejected: Rejected) -> Iterator[pl.DataFrame]:
        """Read the rows: every column as text (nested values as JSON text), ``SOURCE_FILE`` and ``SOURCE_ROW``.

        Args:
            rejected: takes the lines that are no rows.

        Raises:
            SourceError: the file cannot be read.
        """
        ...


def placed(rows: pl.DataFrame, label: str, numbers: pl.Series | pl.Expr) -> pl.DataFrame:
    """Return ``rows`` with their places. ``label`` says in which file, and what, ``numbers`` count."""
    return rows.with_columns(pl.lit(label).alias(SOURCE_FILE), numbers.cast(pl.Int64).alias(SOURCE_ROW))

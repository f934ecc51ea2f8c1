"""CSV and its kin: DuckDB finds out the dialect, reads the rows, and names the lines that are no rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import duckdb
import numpy as np
import polars as pl

from warehouse.importers.encodings import TextFile, opened
from warehouse.importers.exports import Rejected, placed
from warehouse.importers.landing_writer import SourceError
from warehouse.ingest.read import SOURCE_ROW
from warehouse.spill import BATCH_ROWS

_MEMORY = "160MiB"  # of a reading connection, beside what sorts
_THREADS = 2  # each holds buffers of 32 MiB
_MAXIMUM_REJECTS = 100_000
_HEADER_BYTES = 2**20
_LINE_BYTES, _BUFFER_BYTES = 2**24, 2**25  # the longest line that is read
_SHOWN_CHARACTERS = 60
_MOSTLY, _NEARLY_ALL = 0.5, 0.95  # of the first lines that have as many fields as the header
_COMPARED, _DELIMITERS = 200, ",;\t|"
_ABOVE_HEADER = 20  # lines, of a title and the like
_RECORD = "record"  # what numbers count where a record may be several lines, or a line none
_EXCEL_SEPARATOR = re.compile(r"sep=(.)\s*")  # a first line with which Excel is told the delimiter
# A number with decimals, an epoch or a time: no name of a column, which a year or a small number may be.
# What no name of a column has and separates columns that DuckDB has not told apart: "user^item", "<html>".
_SEPARATED = re.compile(r"[^\w\s.()\[\]#%&/:'+-]")
_A_VALUE = re.compile(r"(?!\d{1,8}$)[-+]?\d[\d.,:/ T+Z-]*")


@dataclass(frozen=True)
class Dialect:
    """How rows and fields are told apart."""

    delimiter: str
    quote: str
    escape: str
    skipped: int  # lines before the header


@dataclass(frozen=True)
class DelimitedExport:
    """A text file with a header, its fields separated by one character."""

    path: Path
    text: TextFile
    dialect: Dialect
    names: tuple[str, ...]
    header: tuple[str, ...]  # as the file writes it: ``names`` tell columns apart that it calls the same
    may_leave_out: bool = False

    @property
    def encoding(self) -> str:
        """Return the encoding of the file's text."""
        return self.text.encoding

    @cached_property
    def _found(self) -> _Found:
        return _read_through(self)

    def batches(self, rejected: Rejected) -> Iterator[pl.DataFrame]:
        """Yield the rows as ``Export.batches`` says."""
        found = self._found
        for line, reason in found.rejected.items():
            rejected.add(self.path, line, reason)
        rejected.stop_if_too_many(self.path, found.rows)
        label, read = f"{self.path.name}, {found.counted}", 0
        # Where lines do not tell how many rows there are, one thread counts what several have counted before.
        careful = ", parallel = false" if found.counted == _RECORD else ""
        with duckdb.connect() as connection:
            for frame in _frames(connection, self, careful):
                rows = placed(frame, label, found.records(read, frame.height))
                read += frame.height
                yield self._without_header(rows, rejected)
        if read != found.rows:
            raise SourceError(
                f"{self.path} has {found.rows:,} rows at the first reading and {read:,} at the second. Is it being "
                "written? If not, quote its texts in one way in all lines."
            )
        if not read:
            nothing = pl.DataFrame(schema=dict.fromkeys(self.names, pl.String))
            yield placed(nothing, label, pl.Series([], dtype=pl.Int64))

    def _without_header(self, rows: pl.DataFrame, rejected: Rejected) -> pl.DataFrame:
        """Return ``rows`` without the rows that repeat the header, as in files that were put together from several."""
        again = pl.all_horizontal(pl.col(name) == text for name, text in zip(self.names, self.header, strict=True))
        found = rows.select(again.fill_null(False).alias("again"))["again"]
        for line in rows[SOURCE_ROW].filter(found):
            rejected.add(self.path, line, "the header again")
        return rows.filter(~found) if found.any() else rows


@dataclass(frozen=True)
class _Found:
    """The results of a first reading.

    Attributes:
        rows: the number of rows.
        counted: "line" where each record is a line, else "record".
        bad: the records that are no rows, ascending, the header being record 1.
        rejected: the reason for each line that is no row.
        first: the record of the first row.
    """

    rows: int
    counted: str
    bad: np.ndarray
    rejected: dict[int, str]
    first: int

    def records(self, before: int, rows: int) -> pl.Series:
        """Return the record numbers of the ``rows`` rows that follow the first ``before`` rows."""
        numbers = np.arange(before, before + rows) + self.first
        # Each bad record up to a row moves it on by one: of the k-th bad one, k rows and bad ones lie before it.
        shifts = self.bad - np.arange(len(self.bad))
        return pl.Series(numbers + np.searchsorted(shifts, numbers, side="right"))


def open_delimited(path: Path, text: TextFile) -> DelimitedExport:
    """Find out a file's dialect and columns.

    Raises:
        SourceError: the file is empty, or has no header.
    """
    with opened(text.path) as file:
        head = file.read(_HEADER_BYTES).decode("utf-8-sig", errors="ignore")
    if not head.strip():
        raise SourceError(f"{path} is empty.")
    dialect = _dialect(path, text, head)
    lines = head.splitlines()[dialect.skipped :]
    rows = csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, skipinitialspace=True)
    header = next(rows, [])
    place = f"{path}, line {dialect.skipped + 1}"
    values = [name for name in header if _A_VALUE.fullmatch(name.strip())] or _own_values(header, rows)
    if values:
        raise SourceError(
            f"{place}: {values[0]!r} is a value and not the name of a column. The first line has to name the columns: "
            "put such a line on top of the file."
        )
    if len(header) == 1 and _SEPARATED.search(header[0]):
        raise SourceError(
            f"{place}: {header[0][:_SHOWN_CHARACTERS]!r} is one column. Export the file with commas, semicolons, tabs "
            "or '|' between its columns."
        )
    return DelimitedExport(path, text, dialect, _distinct(header), tuple(header))


def _own_values(header: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
    """Return the names of a header that are also values of their own columns; nothing for fewer than two names.

    Where two or more names are values, the header is a row like others.
    """
    found: dict[str, None] = {}
    try:
        for row in rows:
            if row != header:
                found |= {
                    name: None for name, value in zip(header, row, strict=False) if name.strip() and name == value
                }
    except csv.Error:  # what is wrong with a row is told where it is read
        pass
    return list(found) if len(found) > 1 else []


def _dialect(path: Path, text: TextFile, head: str) -> Dialect:
    lines = head.splitlines()
    told = _EXCEL_SEPARATOR.fullmatch(lines[0])
    if told:
        return Dialect(told[1], '"', '"', 1)
    above = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    found = _sniffed(text.path, above)
    if found is None or _agreeing(lines[above:], found[0]) < _MOSTLY:
        below = _columns_below(lines, above)
        if below is not None:
            raise SourceError(
                f"{path}, line {below + 1}: the columns seem to begin here. The first line has to name the columns: "
                f"remove the {below} lines above."
            )
    if found is None:
        raise SourceError(f"{path}{_why_no_dialect(text.path)}")
    quote = found[1] if found[1] != "(empty)" else '"'
    names = [line.count(found[0]) for line in lines[max(above - 1, 0) : above + 1]]
    named_above = above > 0 and lines[above - 1].startswith("#") and names[0] == names[1] > 0  # "#user,item,..."
    return Dialect(found[0], quote, found[2] if found[2] != "(empty)" else quote, above - named_above)


def _sniffed(path: Path, skipped: int) -> tuple[str, str, str] | None:
    """Return delimiter, quote and escape as DuckDB finds them below the first lines; None where DuckDB finds none."""
    try:
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT Delimiter, Quote, Escape FROM sniff_csv($path, all_varchar = true, ignore_errors = true, "
                f"compression = $compression, skip = {skipped}, max_line_size = {_LINE_BYTES}, "
                f"buffer_size = {_BUFFER_BYTES})",
                {"path": str(path), "compression": _compression(path)},
            ).fetchone()
    except duckdb.Error:
        return None
    return cast(tuple[str, str, str], found)


def _agreeing(lines: Sequence[str], delimiter: str) -> float:
    """Return the share of the first rows that have as many fields as the header, or one empty field more."""
    try:
        header, *rows = csv.reader(lines[:_COMPARED], delimiter=delimiter)
    except csv.Error:  # a field that is too large: what is wrong with a row is told where it is read
        return 1.0
    fitting = [len(row) == len(header) or (len(row) == len(header) + 1 and not row[-1]) for row in rows if row]
    return sum(fitting) / len(fitting) if fitting else 1.0


def _columns_below(lines: Sequence[str], above: int) -> int | None:
    """Return how many lines, of a title and the like, stand above the line that fits all others; None for no lines."""
    if len([text for text in re.split(f"[{_DELIMITERS}]", lines[above]) if text.strip()]) > 1:
        return None  # a header, though an odd one
    for skipped in range(above + 1, min(above + _ABOVE_HEADER, len(lines) - 1)):
        for delimiter in _DELIMITERS:
            if lines[skipped].count(delimiter) and _agreeing(lines[skipped:], delimiter) > _NEARLY_ALL:
                return skipped
    return None


def _why_no_dialect(path: Path) -> str:
    """Return why a file's dialect cannot be found out, and what to do. The text is read behind the file's name."""
    with opened(path) as file:
        for line, content in enumerate(file, 1):
            if len(content) > _LINE_BYTES:
                return (
                    f", line {line}: longer than {_LINE_BYTES // 2**20} MiB. Is there a quote that opens and does not "
                    "close, or is the file one line? Correct the line, or leave it out."
                )
    return (
        ": which character separates the columns cannot be found out. Export it with commas, semicolons, tabs or '|' "
        "between them, and the same number in every line."
    )


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that tell columns apart. A name that is missing or repeated gets the number of its column."""
    found: list[str] = []
    for number, name in enumerate((name.strip() for name in names), 1):
        known = {each.lower() for each in found}  # DuckDB's columns are not told apart by case
        found.append(name if name and name.lower() not in known else f"{name or 'column'}_{number}")
    return tuple(found)


def _query(
    connection: duckdb.DuckDBPyConnection, export: DelimitedExport, select: str, more: str = ""
) -> duckdb.DuckDBPyRelation:
    """Return the query of the rows. After it, ``reject_errors`` has the lines that are no rows.

    ``ignore_errors`` alone loses rows behind a value with a quote within.
    """
    connection.execute(f"SET memory_limit = '{_MEMORY}'")
    connection.execute(f"SET threads = {_THREADS}")
    connection.execute("SET preserve_insertion_order = true")
    dialect, path = export.dialect, export.text.path
    columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in export.names)
    return connection.sql(
        f"{select} FROM read_csv({_literal(str(path))}, auto_detect = false, header = true, skip = {dialect.skipped}, "
        f"delim = {_literal(dialect.delimiter)}, quote = {_literal(dialect.quote)}, "
        f"escape = {_literal(dialect.escape)}, compression = '{_compression(path)}', strict_mode = true, "
        f"max_line_size = {_LINE_BYTES}, buffer_size = {_BUFFER_BYTES}, columns = {{{columns}}}, "
        f"store_rejects = true, rejects_limit = {_MAXIMUM_REJECTS}{more})"
    )


def _frames(connection: duckdb.DuckDBPyConnection, export: DelimitedExport, more: str) -> Iterator[pl.DataFrame]:
    """Yield the rows, batch by batch.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        for batch in _query(connection, export, "SELECT *", more).to_arrow_reader(BATCH_ROWS):
            yield pl.DataFrame(batch).cast(pl.String)
    except duckdb.Error as error:
        raise SourceError(f"{export.path} cannot be read: {str(error).strip().splitlines()[0]}") from error


def _read_through(export: DelimitedExport) -> _Found:
    """Read all rows, to find the lines that are no rows.

    Raises:
        SourceError: a quote opens that does not close, or the file cannot be read.
    """
    try:
        with duckdb.connect() as connection:
            [(rows, *_)] = _query(connection, export, "SELECT count(*), count(COLUMNS(*))").fetchall()
            rejects = connection.execute(
                "SELECT line, min(line_byte_position), min(error_type), min(error_message), any_value(csv_line) "
                "FROM reject_errors GROUP BY line ORDER BY line"
            ).fetchall()
    except duckdb.Error as error:
        raise SourceError(f"{export.path} cannot be read: {str(error).strip().splitlines()[0]}") from error
    records = [line for line, *_ in rejects]  # the skipped lines included
    every_line = rows + len(rejects) + 1 + export.dialect.skipped == export.text.lines
    lines = records if every_line else _lines_at(export.text.path, [position for _, position, *_ in rejects])
    rejected = {}
    for line, (_, _, kind, message, content) in zip(lines, rejects, strict=True):
        _stop_at_an_open_quote(export.path, line, kind, content or "")
        rejected[line] = _reason(message, len(export.names))
    first = export.dialect.skipped + 2
    return _Found(rows, "line" if every_line else _RECORD, np.array(records, np.int64), rejected, first)


def _stop_at_an_open_quote(path: Path, line: int, kind: str, content: str) -> None:
    if kind == "UNQUOTED VALUE" and "\n" in content.strip("\n"):
        raise SourceError(
            f"{path}, line {line}: a quote opens and does not close, so that the lines after it are taken for its "
            "text. Close the quote, or remove it."
        )


def _reason(message: str, columns: int) -> str:
    found = re.search(r"Found: (\d+)", message)
    return f"{found[1]} fields where the header names {columns}" if found else message.rstrip(".")


def _lines_at(path: Path, positions: Sequence[int]) -> list[int]:
    """Return the numbers of the lines that begin at byte positions, ascending."""
    lines, line, place = [], 1, 0
    with opened(path) as file:
        for position in positions:
            line += file.read(position - place).count(b"\n")
            place = position
            lines.append(line)
    return lines


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else "none"


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"

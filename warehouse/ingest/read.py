"""Landing files, read batch by batch and cast to their table's contract.

Times without a zone are taken as UTC: a log says UTC far more often than it says which local time it means, and the
choice must not depend on the machine that ingests. List and struct columns of CSV and JSON lines are JSON text.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs

from warehouse.contracts import LIMITS, REQUIRED_COLUMNS, SCHEMAS, LandingTable
from warehouse.ingest.broken_csv import broken_csv_line
from warehouse.ingest.json_lines import BrokenLine, field_names, json_batches, mentioned
from warehouse.landing import is_utf8, shown

FORMATS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
ROW = "row"
# Where the rows of an import come from: the file that was imported, and a number in it.
SOURCE_FILE, SOURCE_ROW = "source_file", "source_row"
UNREADABLE = "unreadable"
LOST = "lost"
OF_IMPORTS = (SOURCE_FILE, SOURCE_ROW)
_SAMPLED_LINES = 1000
_CHUNK_ROWS = 10_000
_BLOCK_BYTES = 2**20
_COLUMN_BYTES = 64 * 2**20  # of a batch where one column is looked for
# What a message quotes of the file, also where its first line ends within the quotation.
_QUOTED = re.compile(r"`[^`]*(`|$)|\"[^\"]*(\"|$)|'[^']*'|(?<=JSON object: ).*$")


class LandingError(ValueError):
    """A landing file cannot be used at all; the message names the file, the rule and what to do."""


@dataclass(frozen=True)
class Arrival:
    """Some rows of one file.

    Attributes:
        path: the file.
        raw: the rows as they were written, every column.
        typed: the same rows with the contract's columns and types, ``row`` (of the file, 1-based, a header is no row),
            ``unreadable`` (which values cannot be read, or null) and ``lost`` (names of the optional numbers that
            cannot be read, so that the row goes without them; an empty list where there are none).
        ignored_columns: columns that the contract does not know.
    """

    path: Path
    raw: pl.DataFrame
    typed: pl.DataFrame
    ignored_columns: tuple[str, ...]


def read_arrival(path: Path, table: LandingTable, batch_bytes: int) -> Iterator[Arrival]:
    """Read a Parquet, CSV or JSON-lines file (the last two plain or gzip) and cast it to the table's contract.

    Args:
        batch_bytes: about how large a batch becomes as it was written; there is at least one.

    Raises:
        LandingError: unknown format, truncated or corrupt content, text that is not UTF-8, a required column that is
            missing, or a column of a type that cannot hold the contract's values. What is wrong at the file's end is
            found there, after earlier batches.
    """
    schema, limits, read = pl.Schema(SCHEMAS[table]), LIMITS.get(table, ()), 0
    for raw in _batches(path, schema, REQUIRED_COLUMNS[table], batch_bytes):
        missing = [column for column in REQUIRED_COLUMNS[table] if column not in raw.columns]
        if missing:
            if (told := _other_dialect(raw.columns)) is not None:
                raise LandingError(f"{path}: {told}. `adseq import csv` reads such files; or write it again.")
            raise LandingError(
                f"{path}: required column {missing[0]!r} of table {table.value!r} is missing (found: "
                f"{', '.join(raw.columns) or 'no column'}). Rename the export's column to {missing[0]!r} or add it."
            )
        ignored = tuple(name for name in raw.columns if name not in schema and name not in OF_IMPORTS)
        yield Arrival(path, raw, _typed(raw, schema, path, before=read, limits=limits), ignored)
        read += raw.height


def _other_dialect(columns: Sequence[str]) -> str | None:
    """Return the fault of a CSV header in UTF-16 or with another separator than commas; None without such a fault."""
    if any("\0" in name for name in columns):
        return "the file has to be UTF-8, and looks like UTF-16"
    found = [sign for sign in ";\t|" if len(columns) == 1 and sign in columns[0]]
    return f"the file has to have commas between its columns, and has {found[0]!r}" if found else None


def _typed(raw: pl.DataFrame, schema: pl.Schema, path: Path, *, before: int, limits: Collection[str]) -> pl.DataFrame:
    """Return ``raw`` in contract columns, with ``row`` (after the rows ``before``), ``unreadable`` and ``lost``."""
    columns, unreadable, lost = [], [], []
    for name, kind in schema.items():
        if name not in raw.columns:
            columns.append(pl.Series(name, [None], dtype=kind).new_from_index(0, raw.height))
            continue
        column = _cast(raw[name], kind, path)
        columns.append(column)
        if column.null_count() > raw[name].null_count():
            became_null = column.is_null() & raw[name].is_not_null()
            if kind.is_numeric() and name not in limits:  # every number of the contracts is optional
                lost.append(pl.when(became_null).then(pl.lit(name)).alias(name))
            else:
                unreadable.append(pl.when(became_null).then(pl.lit(_unreadable(name, kind))).alias(name))
    typed = pl.DataFrame(columns).with_columns(
        pl.int_range(before + 1, before + raw.height + 1, dtype=pl.Int64).alias(ROW),
        (pl.concat_str(unreadable, separator="; ", ignore_nulls=True) if unreadable else pl.lit("")).alias(UNREADABLE),
        (pl.concat_list(lost).list.drop_nulls() if lost else pl.lit([], pl.List(pl.String))).alias(LOST),
    )
    return typed.with_columns(pl.col(UNREADABLE).replace("", None))


def text_in(path: Path, column: str) -> pl.Series | None:
    """Return one column of a landing file, as text that ingestion reads; None where the file has no such column.

    Raises:
        LandingError: as ``read_arrival``.
    """
    found, known = [], False
    for raw in _batches(path, pl.Schema({column: pl.String()}), (), _COLUMN_BYTES):
        known |= column in raw.columns
        nulls = pl.Series(column, [None], dtype=pl.String).new_from_index(0, raw.height)
        found.append(_cast(raw[column], pl.String(), path) if column in raw.columns else nulls)
    return pl.concat(found) if known else None


def json_rows(raw: pl.DataFrame) -> pl.Series:
    """Return each row as JSON text; types that JSON lacks become text."""
    plain = raw.with_columns(
        cs.binary().bin.encode("base64"), (cs.decimal() | cs.duration() | cs.time() | cs.categorical()).cast(pl.String)
    )
    return plain.select(pl.struct(pl.all()).struct.json_encode().alias("content"))["content"]


def format_of(path: Path) -> str | None:
    """Return the format that a file's name says; None for a name of no data file."""
    return next((suffix for suffix in FORMATS if path.name.lower().endswith(suffix)), None)


def _batches(path: Path, schema: pl.Schema, required: Collection[str], batch_bytes: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file as they were written; at least one batch, with all columns."""
    suffix = format_of(path)
    if not is_utf8(path):
        raise LandingError(f"{shown(path)}: the name is not UTF-8. Rename the file, or the folder that it lies in.")
    if suffix is None:
        raise LandingError(
            f"{path}: unknown format; adseq reads {', '.join(FORMATS)}. Rename the file or move it away."
        )
    try:
        if suffix.endswith(".gz"):
            read_through(path)
        if suffix == ".parquet":
            rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            yield from _in_batches(_scanned(rows), batch_bytes)
        elif suffix.startswith(".csv"):
            # All columns as text; the contract decides the types, and an empty field, quoted or not, is null. That is
            # done batch by batch: within the query, it would read ahead and hold what it has read.
            for raw in _in_batches(_scanned(pl.scan_csv(path, infer_schema=False, glob=False)), batch_bytes):
                yield raw.with_columns(pl.all().replace("", None))
        else:
            yield from _json_lines(path, schema, required, batch_bytes)
    except (pl.exceptions.PolarsError, EOFError, zlib.error, OSError, ValueError) as error:
        # Without what it quotes: that may be a user's id, and the message is kept where nobody looks for users.
        broken = broken_csv_line(path) if suffix.startswith(".csv") else None
        first_line = broken or _QUOTED.sub("…", str(error).strip().split("\n")[0])
        raise LandingError(
            f"{path}: the file must be whole, valid {suffix} in UTF-8, but reading it failed: {first_line}. "
            "Write it again (under a name that ends in .tmp, renamed when it is complete)."
        ) from error


def read_through(path: Path) -> None:
    """Check that a gzip file is whole and undamaged: Polars reads a file that ends early without an error.

    Raises:
        EOFError, zlib.error, OSError: the file is not whole, or damaged.
    """
    with gzip.open(path) as file:
        while file.read(_BLOCK_BYTES):
            pass


def _scanned(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the chunks of a query, and an empty chunk at the end."""
    yield from rows.collect_batches(chunk_size=_CHUNK_ROWS, maintain_order=True, lazy=True)
    yield rows.collect_schema().to_frame()


def _in_batches(chunks: Iterable[pl.DataFrame], batch_bytes: int) -> Iterator[pl.DataFrame]:
    """Yield batches of chunks, at least one: the width of the rows, and so of a batch, shows only in the chunks."""
    held: list[pl.DataFrame] = []
    size = batches = 0
    for chunk in chunks:
        held.append(chunk)
        size += int(chunk.estimated_size())
        if size >= batch_bytes:
            yield pl.concat(held, rechunk=True)
            held, size, batches = [], 0, batches + 1
    if not batches or any(chunk.height for chunk in held):
        yield pl.concat(held, rechunk=True)


def _json_lines(path: Path, schema: pl.Schema, required: Collection[str], batch_bytes: int) -> Iterator[pl.DataFrame]:
    """Yield all fields as text (nested fields as JSON text): one odd value then costs its row and not the file.

    A field that the contract does not know is read where the first lines have it.

    Raises:
        ValueError: a line is no JSON object.
    """
    sampled = field_names(path, _SAMPLED_LINES)
    known = {*sampled, *mentioned(path, [name for name in required if name not in sampled])}
    unsampled = [name for name in schema if name not in sampled and (name in known or name not in required)]
    for raw in _in_batches(_whole_lines(path, [*sampled, *unsampled]), batch_bytes):
        never = [name for name in unsampled if name not in required and raw[name].null_count() == raw.height]
        yield raw.drop(never)


def _whole_lines(path: Path, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Yield the fields ``names`` of a file's lines, chunk by chunk, as long as all lines are JSON objects.

    Raises:
        ValueError: a line is no JSON object.
    """
    broken: list[BrokenLine] = []
    for _, rows in json_batches(path, names, _CHUNK_ROWS, broken):
        if broken:
            raise ValueError(f"line {broken[0].number} is {broken[0].reason}")
        yield rows


def _cast(column: pl.Series, kind: pl.DataType, path: Path) -> pl.Series:
    """Return a column in the contract's type; an unreadable value becomes null, a column of no fitting type raises."""
    source = column.dtype
    if kind.is_numeric() and (source.is_numeric() or isinstance(source, pl.Boolean)):
        return _number(column.cast(pl.Float64, strict=False), kind)
    if kind.is_numeric() and isinstance(source, pl.String):
        return _number(column.str.strip_chars().cast(pl.Float64, strict=False), kind)
    if source == kind or source == pl.Null:
        return column.cast(kind)
    if isinstance(kind, pl.Datetime) and isinstance(source, pl.String | pl.Datetime | pl.Date):
        return _times(column)
    if isinstance(kind, pl.List) and isinstance(source, pl.String):
        return _decode_json(column, kind)
    if isinstance(kind, pl.List) and isinstance(source, pl.List | pl.Array):
        return column.cast(kind, strict=False)
    if isinstance(kind, pl.String) and not source.is_nested():
        return column.cast(kind, strict=False)
    raise LandingError(
        f"{path}: column {column.name!r} has type {source}, which cannot be read as {kind}. "
        f"Export it as {_wanted(kind)}."
    )


def _number(column: pl.Series, kind: pl.DataType) -> pl.Series:
    """Return numbers as the contract has them: 25.0 is the whole number 25, and 25.5 is no number; NaN becomes null."""
    number = column.fill_nan(None)
    if kind.is_integer():
        number = number.set(number != number.round(), None)
    return number.cast(kind, strict=False)


def _times(column: pl.Series) -> pl.Series:
    """Return times in microseconds UTC, from dates, times or text (ISO 8601, also a space, ``UTC``, a date alone)."""
    if isinstance(column.dtype, pl.String):
        return column.to_frame().select(times_of_text(pl.col(column.name)))[column.name]
    times = column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)))
    has_zone = getattr(column.dtype, "time_zone", None) is not None
    return times.dt.convert_time_zone("UTC") if has_zone else times.dt.replace_time_zone("UTC")


def times_of_text(column: pl.Expr) -> pl.Expr:
    """Return text as times in microseconds UTC; null for a text that is no time."""
    text = column.str.strip_chars()
    text = text.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1} 00:00:00").str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "${1} ")
    text = text.str.replace(r"^(\S+ \d\d:\d\d)($|[+\-Zz ])", "${1}:00${2}").str.replace(r" ?(UTC|[Zz])$", "+00:00")
    text = text.str.replace(r"^(\S+ \d\d:\d\d:\d\d(?:\.\d+)?)$", "${1}+00:00")
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", strict=False)


def _decode_json(column: pl.Series, kind: pl.DataType) -> pl.Series:
    try:
        return column.str.json_decode(kind)
    except pl.exceptions.PolarsError:  # at least one text is broken: find which, one at a time
        return pl.Series(column.name, [_decode_one(text, kind) for text in column], dtype=kind)


def _decode_one(text: str | None, kind: pl.DataType) -> list[object] | None:
    try:
        decoded = pl.Series([text], dtype=pl.String).str.json_decode(kind)
    except pl.exceptions.PolarsError:
        return None
    return decoded.to_list()[0]


def _unreadable(name: str, kind: pl.DataType) -> str:
    return f"{name} can be read as {_wanted(kind)}"


def _wanted(kind: pl.DataType) -> str:
    if isinstance(kind, pl.Datetime):
        return "a time (ISO 8601)"
    if isinstance(kind, pl.List):
        return "a list (JSON)"
    return "a number" if kind.is_numeric() else "text"

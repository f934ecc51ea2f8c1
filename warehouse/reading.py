"""One landing file, read and cast to its table's contract.

Times without a zone are taken as UTC: a log says UTC far more often than it says which local time it means, and the
choice must not depend on the machine that ingests. List and struct columns of CSV and JSON lines are JSON text.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl
import polars.selectors as cs

from warehouse.contracts import REQUIRED_COLUMNS, SCHEMAS, LandingTable

FORMATS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
ROW = "row"
UNREADABLE = "unreadable"
_SAMPLED_LINES = 1000
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|'[^']*'")


class LandingError(ValueError):
    """A landing file cannot be used at all; the message names the file, the rule and what to do."""


@dataclass(frozen=True)
class Arrival:
    """One file.

    Attributes:
        path: the file.
        raw: its rows as they were written, every column.
        typed: the same rows with the contract's columns and types, ``row`` (1-based, a header is no row) and
            ``unreadable`` (why a value became null, or null).
        ignored_columns: columns that the contract does not know.
    """

    path: Path
    raw: pl.DataFrame
    typed: pl.DataFrame
    ignored_columns: tuple[str, ...]


def read_arrival(path: Path, table: LandingTable) -> Arrival:
    """Read a Parquet, CSV or JSON-lines file (the last two plain or gzip) and cast it to the table's contract.

    Raises:
        LandingError: unknown format, truncated or corrupt content, text that is not UTF-8, a required column that is
            missing, or a column of a type that cannot hold the contract's values.
    """
    schema = pl.Schema(SCHEMAS[table])
    raw = _read(path, schema)
    missing = [column for column in REQUIRED_COLUMNS[table] if column not in raw.columns]
    if missing:
        raise LandingError(
            f"{path}: required column {missing[0]!r} of table {table.value!r} is missing (found: "
            f"{', '.join(raw.columns) or 'no column'}). Rename the export's column to {missing[0]!r} or add it."
        )
    columns, unreadable = [], []
    for name, kind in schema.items():
        if name not in raw.columns:
            columns.append(pl.Series(name, [None], dtype=kind).new_from_index(0, raw.height))
            continue
        column = _cast(raw[name], kind, path)
        columns.append(column)
        if column.null_count() > raw[name].null_count():
            reason = pl.when(column.is_null() & raw[name].is_not_null()).then(pl.lit(_unreadable(name, kind)))
            unreadable.append(reason.alias(name))
    typed = pl.DataFrame(columns).with_columns(
        pl.int_range(1, raw.height + 1, dtype=pl.Int64).alias(ROW),
        (pl.concat_str(unreadable, separator="; ", ignore_nulls=True) if unreadable else pl.lit("")).alias(UNREADABLE),
    )
    typed = typed.with_columns(pl.col(UNREADABLE).replace("", None))
    return Arrival(path, raw, typed, tuple(name for name in raw.columns if name not in schema))


def text_in(path: Path, column: str) -> pl.Series | None:
    """One column of a landing file as ingestion reads it, as text; None where the file does not have it.

    Raises:
        LandingError: as ``read_arrival``.
    """
    raw = _read(path, pl.Schema({column: pl.String()}))
    return _cast(raw[column], pl.String(), path) if column in raw.columns else None


def json_rows(raw: pl.DataFrame) -> pl.Series:
    """Each row as JSON text; types that JSON lacks become text."""
    plain = raw.with_columns(
        cs.binary().bin.encode("base64"), (cs.decimal() | cs.duration() | cs.time() | cs.categorical()).cast(pl.String)
    )
    return plain.select(pl.struct(pl.all()).struct.json_encode().alias("content"))["content"]


def format_of(path: Path) -> str | None:
    """The format that a file's name says; None for what is no data."""
    return next((suffix for suffix in FORMATS if path.name.lower().endswith(suffix)), None)


def _read(path: Path, schema: pl.Schema) -> pl.DataFrame:
    suffix = format_of(path)
    if suffix is None:
        raise LandingError(
            f"{path}: unknown format; adseq reads {', '.join(FORMATS)}. Rename the file or move it away."
        )
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path, use_pyarrow=False, hive_partitioning=False)
        content = gzip.decompress(path.read_bytes()) if suffix.endswith(".gz") else path.read_bytes()
        return _read_csv(content) if suffix.startswith(".csv") else _read_json_lines(content, schema)
    except (pl.exceptions.PolarsError, EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        # Without what it quotes: that may be a user's id, and the message is kept where nobody looks for users.
        first_line = _QUOTED.sub("…", str(error).strip().split("\n")[0])
        raise LandingError(
            f"{path}: the file must be whole, valid {suffix} in UTF-8, but reading it failed: {first_line}. "
            "Write it again (under a name that ends in .tmp, renamed when it is complete)."
        ) from error


def _read_csv(content: bytes) -> pl.DataFrame:
    """All columns as text; the contract decides the types, and an empty field, quoted or not, is null."""
    return pl.read_csv(content, infer_schema=False).with_columns(pl.all().replace("", None))


def _read_json_lines(content: bytes, schema: pl.Schema) -> pl.DataFrame:
    """All fields as text (nested ones as JSON text), so that one odd value costs its row and not the file."""
    if not content.strip():
        return pl.DataFrame(schema=dict.fromkeys(schema, pl.String))
    names: dict[str, None] = {}
    for line in islice(content.splitlines(), _SAMPLED_LINES):
        if line.strip():
            names.update(dict.fromkeys(_keys(line)))
    optional = [name for name in schema if name not in names and f'"{name}"'.encode() in content]
    return pl.read_ndjson(content, schema=dict.fromkeys([*names, *optional], pl.String))


def _keys(line: bytes) -> list[str]:
    """Field names of one line; none for a broken line, which the reader then reports for the whole file."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return []
    return list(fields) if isinstance(fields, dict) else []


def _cast(column: pl.Series, kind: pl.DataType, path: Path) -> pl.Series:
    """Cast a column; a value that cannot be read becomes null, a column that never could raises."""
    source = column.dtype
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
    if kind.is_numeric() and isinstance(source, pl.String):
        return column.str.strip_chars().cast(kind, strict=False)
    if kind.is_numeric() and (source.is_numeric() or isinstance(source, pl.Boolean)):
        return column.cast(kind, strict=False)
    raise LandingError(
        f"{path}: column {column.name!r} has type {source}, which cannot be read as {kind}. "
        f"Export it as {_wanted(kind)}."
    )


def _times(column: pl.Series) -> pl.Series:
    """Times in microseconds UTC from text (ISO 8601, also with a space, ``UTC`` or a date alone), dates or times."""
    if isinstance(column.dtype, pl.String):
        text = pl.col(column.name).str.strip_chars()
        text = text.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1} 00:00:00").str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "${1} ")
        text = text.str.replace(r"^(\S+ \d\d:\d\d)($|[+\-Zz ])", "${1}:00${2}").str.replace(r" ?(UTC|[Zz])$", "+00:00")
        text = text.str.replace(r"^(\S+ \d\d:\d\d:\d\d(?:\.\d+)?)$", "${1}+00:00")
        parsed = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", strict=False)
        return column.to_frame().select(parsed)[column.name]
    times = column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)))
    has_zone = getattr(column.dtype, "time_zone", None) is not None
    return times.dt.convert_time_zone("UTC") if has_zone else times.dt.replace_time_zone("UTC")


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

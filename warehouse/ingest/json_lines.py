"""JSON lines as text columns: one odd line or value costs itself and not the file."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

_MARK = b"\xef\xbb\xbf"
# What Python writes for a float that JSON does not have. A text that only holds the word takes the longer way, too.
_NO_JSON = (b"NaN", b"Infinity")


@dataclass(frozen=True)
class BrokenLine:
    """A line that is no JSON object."""

    number: int
    reason: str  # quotes nothing of the line


def field_names(path: Path, lines: int) -> list[str]:
    """Return the names of the fields in the first lines, in the order in which they occur."""
    found: dict[str, None] = {}
    with _opened(path) as file:
        for number, line in enumerate(islice(_without_mark(file), lines), 1):
            if line.strip():
                fields = _object(line, number)
                found |= dict.fromkeys(fields if isinstance(fields, dict) else ())
    return list(found)


def first_broken(path: Path) -> BrokenLine | None:
    """Return the first line that is no JSON object; None without such a line."""
    with _opened(path) as file:
        found = (_object(line, number) for number, line in enumerate(_without_mark(file), 1) if line.strip())
        return next((each for each in found if isinstance(each, BrokenLine)), None)


def mentioned(path: Path, names: Collection[str]) -> set[str]:
    """Return the ``names`` that some line has between quotes. Reading stops when all names are found."""
    missing = set(names)
    with _opened(path) as file:
        for line in file if missing else ():
            missing -= {name for name in missing if f'"{name}"'.encode() in line}
            if not missing:
                break
    return set(names) - missing


def json_batches(
    path: Path, names: Sequence[str], batch_rows: int, broken: list[BrokenLine]
) -> Iterator[tuple[pl.Series, pl.DataFrame]]:
    """Read a plain or gzip file batch by batch, at least one: line numbers and the fields ``names`` as text.

    Nested values are JSON text; a field that is absent, null or NaN is null. Lines that are no JSON object are appended
    to ``broken`` before the batch that they would be in.

    Raises:
        OSError, EOFError, zlib.error: the file cannot be read, or a gzip file ends early.
    """
    schema = pl.Schema(dict.fromkeys(names, pl.String))
    first = True
    with _opened(path) as file:
        numbered = ((n, line) for n, line in enumerate(_without_mark(file), 1) if line.strip())
        while block := list(islice(numbered, batch_rows)):
            first = False
            yield _read(block, schema, broken)
    if first:
        yield pl.Series([], dtype=pl.Int64), pl.DataFrame(schema=schema)


def _read(
    block: list[tuple[int, bytes]], schema: pl.Schema, broken: list[BrokenLine]
) -> tuple[pl.Series, pl.DataFrame]:
    content = b"\n".join(line.rstrip() for _, line in block)
    if not any(word in content for word in _NO_JSON):
        try:
            rows = pl.read_ndjson(io.BytesIO(content), schema=schema)
        except pl.exceptions.PolarsError:
            pass
        else:
            if rows.height == len(block):
                return pl.Series([number for number, _ in block], dtype=pl.Int64), rows
    return _line_by_line(block, schema, broken)


def _line_by_line(
    block: list[tuple[int, bytes]], schema: pl.Schema, broken: list[BrokenLine]
) -> tuple[pl.Series, pl.DataFrame]:
    numbers, rows = [], []
    for number, line in block:
        fields = _object(line, number)
        if isinstance(fields, BrokenLine):
            broken.append(fields)
            continue
        numbers.append(number)
        rows.append([_text(fields.get(name)) for name in schema])
    return pl.Series(numbers, dtype=pl.Int64), pl.DataFrame(rows, schema=schema, orient="row")


def _object(line: bytes, number: int) -> dict[str, Any] | BrokenLine:
    try:
        fields = json.loads(line)
    except UnicodeDecodeError:
        return BrokenLine(number, "not UTF-8")
    except json.JSONDecodeError as error:
        return BrokenLine(number, f"not JSON ({error.msg} at character {error.pos + 1})")
    except RecursionError:
        return BrokenLine(number, "nested too deeply")
    return fields if isinstance(fields, dict) else BrokenLine(number, "no JSON object")


def _text(value: Any) -> str | None:
    """Return a value as Polars reads the value into a text column."""
    if value is None or value != value:  # NaN is not itself
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and isfinite(value):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")  # as Polars: 12.0 is 12, 1e-07 is 0.0000001
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a nested value as Polars reads the value: without NaN, and 12.0 is 12."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and isfinite(value):
        return int(value) if value.is_integer() else value
    return None if value != value else value


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def _without_mark(file: IO[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        yield line.removeprefix(_MARK) if number == 0 else line

"""The line of a CSV file that is no row: the reader of the files does not say which line that is."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import IO, cast


def broken_csv_line(path: Path) -> str | None:
    """Return the first line of a CSV file, plain or gzip, that is no row, and the reason; None where no line is found.

    The text quotes nothing of the line: the line may hold a user's id.
    """
    try:
        with _opened(path) as binary:
            return _first_broken(io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline=""))
    except (OSError, EOFError):
        return None


def _first_broken(text: IO[str]) -> str | None:
    rows, begun, columns = csv.reader(text, strict=True), 0, None
    try:
        for row in rows:
            columns = len(row) if columns is None else columns
            if any(not _is_unicode(value) for value in row):
                return f"line {begun + 1} has a byte that is not UTF-8"
            if len(row) > columns:
                return f"line {begun + 1} has {len(row)} fields where the header names {columns}"
            begun = rows.line_num
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return f"line {begun + 1} opens a quote that does not close"
        return f"line {begun + 1} is no CSV ({error})" if "field larger" not in str(error) else None
    return None


def _is_unicode(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")

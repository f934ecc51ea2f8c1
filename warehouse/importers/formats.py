"""The formats that export files may have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs

from warehouse.importers.delimited import open_delimited
from warehouse.importers.encodings import as_utf8
from warehouse.importers.exports import Export, Rejected, placed
from warehouse.importers.landing_writer import SourceError
from warehouse.ingest.json_lines import BrokenLine, field_names, first_broken, json_batches, mentioned
from warehouse.landing import is_utf8, shown
from warehouse.spill import BATCH_ROWS

DELIMITED = (".csv", ".tsv", ".tab", ".psv", ".txt")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
_OTHER_CONTENT = {  # the first bytes of files that are named like texts now and then
    b"PAR1": ("a Parquet file", "rename it to .parquet"),
    b"PK\x03\x04": ("a ZIP archive or an Excel workbook", "unpack it, or save it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV"),
    b"BZh": ("compressed by bzip2", "unpack it, or compress it by gzip"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it, or compress it by gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "unpack it, or compress it by gzip"),
}
_SEEN_LINES = 10_000  # of JSON lines: a field that comes later is seen where the mapping names it
_ROOT = re.compile(r"[.\[]")  # what ends the name of a column in a path


def open_export(path: Path, directory: Path, encoding: str | None = None, wanted: Collection[str] = ()) -> Export:
    """Open a file of an export.

    Args:
        directory: for a copy in UTF-8, where the file needs one.
        encoding: of a text file that is not Unicode.
        wanted: columns and paths that a mapping reads; fields of JSON lines may begin late in a file.

    Raises:
        SourceError: the format is unknown, or the file cannot be read.
    """
    if not is_utf8(path):
        raise SourceError(f"{shown(path)}: the name is not UTF-8. Rename the file, or the folder that it lies in.")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(PARQUET):
        return ParquetExport(path)
    _refuse_other_content(path)
    if name.endswith(DELIMITED):
        return open_delimited(path, as_utf8(path, directory, encoding))
    if name.endswith(JSON_LINES):
        text = as_utf8(path, directory, encoding)
        names = field_names(text.path, _SEEN_LINES)
        if not names:
            raise SourceError(_without_fields(path, text.path))
        late = mentioned(text.path, {_ROOT.split(name, maxsplit=1)[0] for name in wanted} - set(names))
        return JsonExport(path, text.path, text.encoding, (*names, *sorted(late)))
    known = ", ".join((*DELIMITED, *JSON_LINES, *PARQUET))
    raise SourceError(f"{path}: unknown format; adseq reads {known}, text also as .gz. Rename or convert the file.")


def _refuse_other_content(path: Path) -> None:
    """Refuse a file that is named like a text and begins like something else.

    Raises:
        SourceError: the content is of another format; the message names the format and the remedy.
    """
    with path.open("rb") as file:
        head = file.read(max(map(len, _OTHER_CONTENT)))
    for mark, (what, advice) in _OTHER_CONTENT.items():
        if head.startswith(mark):
            raise SourceError(f"{path} is {what}, whatever its name says: {advice}.")


def _without_fields(path: Path, text: Path) -> str:
    broken = first_broken(text)
    if broken is not None:
        advice = "adseq reads JSON lines: one object a line (`jq -c '.[]'` makes them of an array)."
        return f"{path}, line {broken.number}: {broken.reason}. {advice}"
    return f"{path} is empty."


@dataclass(frozen=True)
class ParquetExport:
    """A Parquet file."""

    path: Path
    encoding: str = ""
    may_leave_out: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns.

        Raises:
            SourceError: the file cannot be read.
        """
        try:
            return tuple(pl.read_parquet_schema(self.path))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.path, error) from error

    def batches(self, rejected: Rejected) -> Iterator[pl.DataFrame]:
        """Yield the rows as ``Export.batches`` says."""
        rows, read = pl.scan_parquet(self.path, glob=False, hive_partitioning=False), 0
        try:
            for batch in rows.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, lazy=True):
                numbers = pl.int_range(read + 1, read + batch.height + 1, eager=True)
                yield placed(_as_text(batch), f"{self.path.name}, row", numbers)
                read += batch.height
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.path, error) from error


def _as_text(batch: pl.DataFrame) -> pl.DataFrame:
    nested = [name for name, kind in batch.schema.items() if kind.is_nested()]
    # Of a float that is no number nothing is left; times with a zone come in UTC.
    whole = batch.with_columns(cs.float().fill_nan(None), cs.binary().bin.encode("base64"))
    zoned = [name for name, kind in batch.schema.items() if isinstance(kind, pl.Datetime) and kind.time_zone]
    whole = whole.with_columns(
        *(pl.col(name).dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%d %H:%M:%S%.f UTC") for name in zoned),
        *(_json_text(whole[name]) for name in nested),
    )
    return whole.with_columns(pl.all().cast(pl.String, strict=False))


def _json_text(column: pl.Series) -> pl.Series:
    """Return a list or struct column as JSON text."""
    wrapped = column.to_frame().select(pl.struct(pl.all()).struct.json_encode().alias(column.name))[column.name]
    inner = wrapped.str.slice(len(column.name.encode()) + 4).str.head(-1)  # {"name":…}
    return pl.select(pl.when(column.is_null()).then(None).otherwise(inner).alias(column.name))[column.name]


@dataclass(frozen=True)
class JsonExport:
    """JSON lines: an object a line."""

    path: Path
    text: Path  # in UTF-8
    encoding: str
    names: tuple[str, ...]
    may_leave_out: bool = True

    def batches(self, rejected: Rejected) -> Iterator[pl.DataFrame]:
        """Yield the rows as ``Export.batches`` says."""
        broken: list[BrokenLine] = []
        read = 0
        for numbers, rows in json_batches(self.text, self.names, BATCH_ROWS, broken):
            yield placed(rows, f"{self.path.name}, line", numbers)
            read += rows.height
            for line in broken:
                rejected.add(self.path, line.number, line.reason)
            broken.clear()
        rejected.stop_if_too_many(self.path, read)


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path} cannot be read: {str(error).strip().splitlines()[0]}. Export or download it again.")

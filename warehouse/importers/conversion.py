"""A column's values as text that ingestion reads, from an export's columns as text."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import polars as pl

from warehouse.contracts import CATEGORY_SEPARATOR, MAXIMUM_TIME, MINIMUM_TIME
from warehouse.importers.mapping import ColumnSource
from warehouse.ingest.read import times_of_text

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%.fZ"  # as ``expression`` writes times
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # in a second
NOT_A_TIME = " (no time as the mapping says)"  # behind a text that ingestion would take for one
_ANY_TIME = (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))
_PLAUSIBLE = (MINIMUM_TIME, MAXIMUM_TIME)
# Between the digits of a number: what people group thousands with, beside the other decimal sign.
_GROUPING = r"\s\x{00a0}\x{202f}'’"


def expression(
    source: ColumnSource, kind: pl.DataType, time_zone: str, *, names: Collection[str], plausible: bool = False
) -> pl.Expr:
    """Return a column's values as text (a time: in UTC, ISO 8601).

    A value that cannot be converted stays as it is written: ingestion then quarantines the row and says why, or drops
    the number.

    Args:
        names: the columns that there are; a column that is not among them is empty.
        plausible: whether a time before 1990 or after 2100 is no time.
    """
    if source.constant is not None:
        return pl.lit(source.constant)
    nothing = dict.fromkeys(("", *source.empty))
    texts = [pl.col(name).str.strip_chars().replace(nothing) for name in source.read if name in names]
    if not texts:
        return _filled(pl.lit(None, pl.String), source)
    if source.columns:
        return _filled(pl.concat_str(texts, separator=CATEGORY_SEPARATOR, ignore_nulls=True).replace("", None), source)
    text = pl.coalesce(texts)
    if isinstance(kind, pl.Datetime):
        written = text.map_batches(
            lambda column: _time_text(column, source, time_zone, plausible), return_dtype=pl.String
        )
        return _filled(written, source)
    if source.decimal is not None:
        text = pl.coalesce(number_text(text, source.decimal), text)
    if source.whole_number:
        text = text.str.replace(r"^([+-]?\d+)\.0+$", "${1}")
    if source.separator is not None:
        text = text.str.replace_all(rf"\s*{_literally(source.separator)}\s*", CATEGORY_SEPARATOR)
    if source.values:
        text = text.replace(source.values)
    return _filled(text, source)


def number_text(text: pl.Expr, decimal: str) -> pl.Expr:
    """Return numbers as people write them ("1.299,00 €", "USD 12.99") as plain numbers; null for another text."""
    grouping = rf"[{_GROUPING}{',' if decimal == '.' else '.'}]"
    digits = rf"(?:\d{{1,3}}(?:{grouping}\d{{3}})+|\d+)(?:{_literally(decimal)}\d+)?"
    currency = r"[\p{L}\p{Sc}.\s\x{00a0}\x{202f}]*?"
    pattern = rf"^{currency}([+-]?){currency}({digits}){currency}$"
    plain = text.str.extract(pattern, 2).str.replace_all(grouping, "").str.replace(decimal, ".", literal=True)
    return text.str.extract(pattern, 1) + plain


def times(texts: pl.Series, source: ColumnSource, time_zone: str, *, plausible: bool = True) -> pl.Series:
    """Return texts as times in UTC; null for a text that is no time, or no ``plausible`` time."""
    bounds = _PLAUSIBLE if plausible else _ANY_TIME
    frame, text = texts.alias("text").to_frame(), pl.col("text")
    if source.unit == "auto":
        return frame.select(pl.coalesce([_epoch(text, unit, _PLAUSIBLE) for unit in UNITS]).alias("read"))["read"]
    if source.unit is not None:
        return frame.select(_epoch(text, source.unit, bounds).alias("read"))["read"]
    # Step by step: as one expression it would be computed wherever it occurs.
    read = frame.select(_written(text, source, time_zone).alias("read"))
    return read.select(pl.when(pl.col("read").is_between(*bounds)).then("read").alias("read"))["read"]


def _literally(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _filled(text: pl.Expr, source: ColumnSource) -> pl.Expr:
    return text if source.default is None else text.fill_null(source.default)


def _time_text(texts: pl.Series, source: ColumnSource, time_zone: str, plausible: bool) -> pl.Series:
    """Return texts as times in UTC, in ISO 8601. A text that is no time stays as it is written."""
    read = times(texts, source, time_zone, plausible=plausible).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    frame = pl.DataFrame({"read": read, "text": texts})
    # Ingestion would take a text like "2026-03-01 10:00" for UTC, whatever the mapping says.
    unread = pl.when(pl.col("read").is_null()).then("text")
    marked = pl.when(times_of_text(unread).is_null()).then(unread).otherwise(unread + NOT_A_TIME)
    return frame.select(pl.coalesce("read", marked).alias(texts.name))[texts.name]


def _epoch(text: pl.Expr, unit: str, bounds: tuple[datetime, datetime]) -> pl.Expr:
    """Return numbers since 1970 UTC, with or without decimals, as times."""
    per_second = UNITS[unit]
    fraction, whole = text.cast(pl.Float64, strict=False), text.cast(pl.Int64, strict=False)
    exact = whole * (10**6 // per_second) if per_second <= 10**6 else whole // (per_second // 10**6)
    micros = pl.coalesce(exact, (fraction * (10**6 / per_second)).round().cast(pl.Int64, strict=False))
    known = (fraction / per_second).is_between(bounds[0].timestamp(), bounds[1].timestamp())
    return pl.from_epoch(pl.when(known).then(micros), "us").dt.replace_time_zone("UTC")


def _written(text: pl.Expr, source: ColumnSource, time_zone: str) -> pl.Expr:
    if source.format is not None and "%z" in source.format.lower():
        return text.str.to_datetime(source.format, time_unit="us", strict=False).dt.convert_time_zone("UTC")
    if source.format is not None:
        return _in_zone(text.str.to_datetime(source.format, time_unit="us", strict=False), time_zone)
    zoned = text.str.replace(r" ?(UTC|[Zz])$", "+00:00").str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "${1} ")
    with_zone = zoned.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", strict=False)
    local = zoned.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1} 00:00:00").str.replace(r"^(\S+ \d\d:\d\d)$", "${1}:00")
    without = local.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    return pl.coalesce(with_zone.dt.convert_time_zone("UTC"), _in_zone(without, time_zone))


def _in_zone(local: pl.Expr, time_zone: str) -> pl.Expr:
    """Return local times as UTC.

    Of an hour that comes twice the first one counts. A time that summer time leaves out is counted from the clock
    before the change, so that 02:23 is 03:23.
    """
    day = pl.duration(days=1)
    found = _clock(local, time_zone)
    left_out = pl.when(found.is_null()).then(local)
    return pl.coalesce(found, _clock(left_out - day, time_zone) + day)


def _clock(local: pl.Expr, time_zone: str) -> pl.Expr:
    zoned = local.dt.replace_time_zone(time_zone, ambiguous="earliest", non_existent="null")
    return zoned.dt.convert_time_zone("UTC")

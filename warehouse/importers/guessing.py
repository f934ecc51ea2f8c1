"""Guesses from the values of a sample: units and formats of times, decimal signs, levels of categories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product

import polars as pl

from warehouse.contracts import EMPTY_WORDS
from warehouse.importers.conversion import UNITS, number_text, times
from warehouse.importers.mapping import ColumnSource

_ENOUGH = 0.9  # of the values that a guess has to read
_DATES = ("%d.%m.%Y", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d", "%d %b %Y", "%b %d, %Y",
          "%d-%b-%Y", "%d/%b/%Y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y")  # fmt: skip
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", " %H:%M:%S%.f", "T%H:%M:%S", " %H%M%S")
_WHOLE_FORMATS = ("%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S")
_LEVEL_SEPARATORS = (">", "/", "|", ".", ";")


def time_words(column: pl.Series) -> list[str] | None:
    """Return the words that a mapping needs for a column of times: a unit, a format, or nothing.

    Return None where no known format reads the texts. Where several formats read equally many texts, like 03/04/2026,
    the format counts by which the log is the shortest.
    """
    texts = column.drop_nulls()
    if not len(texts):
        return []
    if (
        not texts.cast(pl.Float64, strict=False).null_count()
        and _read(texts, ColumnSource(column="t", unit="auto")) > 0
    ):
        units = [unit for unit in UNITS if _read(texts, ColumnSource.model_validate({"column": "t", "unit": unit})) > 0]
        return [f'unit = "{units[0] if len(units) == 1 else "auto"}"']
    if _read(texts, ColumnSource(column="t")) >= _ENOUGH:
        return []
    formats = [*("".join(parts) for parts in product(_DATES, _CLOCKS)), *_WHOLE_FORMATS]
    read = {each: _read(texts, ColumnSource(column="t", format=each)) for each in formats}
    most = max(read.values())
    if most < _ENOUGH:
        return None
    best = min((each for each in formats if read[each] == most), key=lambda each: _span(texts, each))
    return [f"format = {json.dumps(best)}"]


def decimal_sign(column: pl.Series) -> str | None:
    """Return the decimal sign of numbers as people write them; None for plain numbers or for no numbers."""
    texts = column.drop_nulls()
    if not len(texts) or not texts.cast(pl.Float64, strict=False).null_count():
        return None
    frame = texts.alias("number").to_frame()
    read = {sign: int(frame.select(number_text(pl.col("number"), sign).count()).item()) for sign in (".", ",")}
    best = max(read, key=lambda sign: (read[sign], _decimals(texts, sign)))
    return best if read[best] >= _ENOUGH * len(texts) else None


def empty_words(column: pl.Series) -> list[str]:
    """Return the words among the values that stand for nothing, as databases and analytics tools write them."""
    return [word for word in EMPTY_WORDS if (column == word).any()]


def is_whole(column: pl.Series) -> bool:
    """Whether all values are whole numbers that were written with decimals: ``12.0``."""
    texts = column.drop_nulls()
    return len(texts) > 0 and bool(texts.str.contains(r"^\d+\.0+$").all())


def level_separator(values: Sequence[str]) -> str | None:
    """Return the text between the levels of category paths; None where it is the contract's, or there is none."""
    counts = {each: sum(each in value for value in values) for each in _LEVEL_SEPARATORS}
    best = max(counts, key=lambda each: counts[each])
    return best if values and counts[best] >= 0.3 * len(values) and best != ">" else None


def _decimals(texts: pl.Series, sign: str) -> int:
    """Return how many texts end with one or two digits behind the sign, as prices do."""
    return int(texts.str.contains(rf"\{sign}\d{{1,2}}\D*$").sum())


def _span(texts: pl.Series, format_: str) -> timedelta:
    found = times(texts, ColumnSource(column="t", format=format_), "UTC")
    first, last = found.min(), found.max()
    return last - first if isinstance(first, datetime) and isinstance(last, datetime) else timedelta.max


def _read(texts: pl.Series, source: ColumnSource) -> float:
    """Return the share of texts that are times between 1990 and 2100."""
    try:
        read = times(texts, source, "UTC")
    except pl.exceptions.PolarsError:  # a format that no text can have
        return 0.0
    return 1 - read.null_count() / len(texts)

"""How an export of anybody's becomes the landing zone's tables: ``mapping.toml``, typed.

For each table which columns of the export its columns come from, with units, formats and values. What the mapping does
not say is not there; what it cannot convert stays as it is written, and ingestion says which row breaks which rule.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from warehouse.contracts import CATEGORY_SEPARATOR, DEFAULT_POSITIVES, REQUIRED_COLUMNS, SCHEMAS, LandingTable

GENERATED = {LandingTable.events: ("event_id",)}  # made where the export has none


class MappingError(ValueError):
    """The mapping breaks a rule; the message names the table, the column and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """Where the values of one column come from."""

    column: str | None = Field(None, description="A column of the export.")
    columns: tuple[str, ...] = Field((), description="Several, joined to a category path, the root first.")
    constant: str | None = Field(None, description="The same for every row.")
    default: str | None = Field(None, description="Where the export has nothing.")
    unit: Literal["s", "ms", "us", "ns"] | None = Field(None, description="A time: since 1970 UTC, in these units.")
    format: str | None = Field(None, description="A time: as strptime writes it, e.g. '%d.%m.%Y %H:%M'.")
    values: dict[str, str] = Field({}, description="The export's word -> the contract's; others stay as they are.")
    separator: str | None = Field(None, description="A category path: what stands between its levels, e.g. '.'.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.column is not None, bool(self.columns), self.constant is not None]
        if sum(given) != 1:
            raise ValueError("give one of column, columns and constant")
        return self

    @property
    def read(self) -> tuple[str, ...]:
        """The export's columns that are read."""
        return self.columns or ((self.column,) if self.column is not None else ())


def _short(value: Any) -> Any:
    """``user_id = "customer"`` is short for ``user_id = {column = "customer"}``."""
    return {"column": value} if isinstance(value, str) else value


class TableMapping(_Strict):
    """One table of the landing zone."""

    into: LandingTable
    files: tuple[str, ...] = Field(("*",), description="Which of the given files: patterns of their names.")
    arrived: Annotated[Source | None, BeforeValidator(_short)] = Field(
        None, description="When a row arrived; events arrive when they happen, other tables with the history."
    )
    columns: dict[str, Annotated[Source, BeforeValidator(_short)]]

    @model_validator(mode="after")
    def _of_the_contract(self) -> Self:
        known = pl.Schema(SCHEMAS[self.into])
        for name in self.columns:
            if name not in known:
                raise ValueError(f"{name!r} is no column of {self.into.value}; there are {', '.join(known)}")
        for name in REQUIRED_COLUMNS[self.into]:
            if name not in self.columns and name not in GENERATED.get(self.into, ()):
                raise ValueError(f"{self.into.value} needs {name!r}: say which column of the export it comes from")
        return self

    @property
    def arrival(self) -> Source | None:
        """The time by which rows are put into days."""
        return self.arrived or self.columns.get("event_time") or self.columns.get("request_time")


class LogMapping(_Strict):
    """What is true of the whole log; most of it goes into the manifest."""

    name: str = "my log"
    time_zone: str = Field("UTC", description="Of times without a zone, and of days.")
    daily_days: int = Field(3, ge=1, description="The last days land one by one; what is before them is the history.")
    positive_events: tuple[str, ...] = DEFAULT_POSITIVES
    prediction_window_days: float = Field(28.0, gt=0)
    repeats_count: bool = True


class Mapping(_Strict):
    """A whole ``mapping.toml``."""

    log: LogMapping = LogMapping()
    table: tuple[TableMapping, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _with_events(self) -> Self:
        tables = [table.into for table in self.table]
        if LandingTable.events not in tables:
            raise ValueError("one [[table]] has to be into = 'events'")
        twice = {table.value for table in tables if tables.count(table) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))}: one [[table]] for each; it may read several files")
        return self

    @classmethod
    def read(cls, path: Path) -> Mapping:
        """Read ``mapping.toml``.

        Raises:
            MappingError: it is missing, no TOML, or breaks a rule.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except FileNotFoundError as error:
            raise MappingError(
                f"{path} does not exist. `adseq import csv --sketch FILE` writes a first one from an export's header."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MappingError(f"{path} is not valid TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the mapping"
            raise MappingError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}.") from error


def expression(source: Source, kind: pl.DataType, time_zone: str) -> pl.Expr:
    """A column's values as text (of a time: in UTC, ISO 8601), from an export's columns as text.

    What cannot be converted stays as it is written: ingestion quarantines the row and says why.
    """
    if source.constant is not None:
        return pl.lit(source.constant)
    if source.columns:
        levels = [pl.col(name).str.strip_chars().replace("", None) for name in source.columns]
        return _filled(pl.concat_str(levels, separator=CATEGORY_SEPARATOR, ignore_nulls=True).replace("", None), source)
    assert source.column is not None
    text = pl.col(source.column).str.strip_chars().replace("", None)
    if isinstance(kind, pl.Datetime):
        return _filled(pl.coalesce(_time(text, source, time_zone).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"), text), source)
    if source.separator is not None:
        text = text.str.replace_all(rf"\s*{_literally(source.separator)}\s*", CATEGORY_SEPARATOR)
    if source.values:
        text = text.replace(source.values)
    return _filled(text, source)


def _literally(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _filled(text: pl.Expr, source: Source) -> pl.Expr:
    return text if source.default is None else text.fill_null(source.default)


def _time(text: pl.Expr, source: Source, time_zone: str) -> pl.Expr:
    """Text as times in UTC; null where it is none."""
    if source.unit is not None:
        if source.unit == "s":  # which may have decimals
            micros = (text.cast(pl.Float64, strict=False) * 10**6).round().cast(pl.Int64)
        else:
            number = text.cast(pl.Int64, strict=False)
            micros = {"ms": number * 1000, "us": number, "ns": number // 1000}[source.unit]
        return pl.from_epoch(micros, "us").dt.replace_time_zone("UTC")
    if source.format is not None and "%z" in source.format.lower():
        return text.str.to_datetime(source.format, time_unit="us", strict=False).dt.convert_time_zone("UTC")
    if source.format is not None:
        return _in_zone(text.str.to_datetime(source.format, time_unit="us", strict=False), time_zone)
    zoned = text.str.replace(r" ?(UTC|[Zz])$", "+00:00").str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "${1} ")
    with_zone = zoned.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us", strict=False)
    local = zoned.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1} 00:00:00").str.replace(r"^(\S+ \d\d:\d\d)$", "${1}:00")
    without = local.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    return pl.coalesce(with_zone.dt.convert_time_zone("UTC"), _in_zone(without, time_zone))


def _in_zone(times: pl.Expr, time_zone: str) -> pl.Expr:
    """Local times as UTC; of an hour that comes twice the first, and one that a zone leaves out is no time."""
    return times.dt.replace_time_zone(time_zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")

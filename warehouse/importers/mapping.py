"""The mapping of any export to the landing zone's tables: ``mapping.toml``, typed.

For each table the mapping names the export's columns that its columns come from, with units, formats and values. A
column without a mapping is absent. A value that cannot be converted stays as it is written, and ingestion says which
row breaks which rule.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from warehouse.contracts import DEFAULT_POSITIVES, EVENT_NAMES, REQUIRED_COLUMNS, SCHEMAS, LandingTable
from warehouse.landing import MAXIMUM_WINDOW_DAYS

GENERATED = {LandingTable.events: ("event_id",)}  # made where the export has none


class MappingError(ValueError):
    """The mapping breaks a rule; the message names the table, the column and what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnSource(_Strict):
    """The source of one column's values. A column may be a path into a list or an object: ``items[].id``."""

    column: str | None = Field(None, description="A column of the export.")
    any_of: tuple[str, ...] = Field(
        (), description="Columns of which the first with a value counts, if one was renamed."
    )
    columns: tuple[str, ...] = Field((), description="Several, joined to a category path, the root first.")
    constant: str | None = Field(None, description="The same for every row.")
    default: str | None = Field(None, description="Where the export has nothing.")
    unit: Literal["s", "ms", "us", "ns", "auto"] | None = Field(
        None, description="A time: since 1970 UTC, in these units; auto: in whichever makes it a time after 1990."
    )
    format: str | None = Field(None, description="A time: as strptime writes it, e.g. '%d.%m.%Y %H:%M'.")
    values: dict[str, str] = Field({}, description="The export's word -> the contract's; others stay as they are.")
    separator: str | None = Field(None, description="A category path: what stands between its levels, e.g. '.'.")
    decimal: Literal[".", ","] | None = Field(
        None, description="A number as people write it: its decimal sign. Currencies and grouping are left out."
    )
    empty: tuple[str, ...] = Field((), description="Words that stand for nothing, e.g. 'null' or '(not set)'.")
    whole_number: bool = Field(False, description="An id that was written as a number: 12.0 is 12.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.column is not None, bool(self.columns), bool(self.any_of), self.constant is not None]
        if sum(given) != 1:
            raise ValueError("give one of column, columns, any_of and constant")
        return self

    @property
    def read(self) -> tuple[str, ...]:
        """Return the export's columns that are read."""
        return self.columns or self.any_of or ((self.column,) if self.column is not None else ())


def _short(value: Any) -> Any:
    """Return the long form of a source: ``"customer"`` is ``{column = "customer"}``, a list is ``{any_of = …}``."""
    if isinstance(value, list):
        return {"any_of": value}
    return {"column": value} if isinstance(value, str) else value


class TableMapping(_Strict):
    """One table of the landing zone."""

    into: LandingTable
    files: tuple[str, ...] = Field(("*",), description="Which of the given files: patterns of their names.")
    arrived: Annotated[ColumnSource | None, BeforeValidator(_short)] = Field(
        None, description="When a row arrived; events arrive when they happen, other tables with the history."
    )
    columns: dict[str, Annotated[ColumnSource, BeforeValidator(_short)]]

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
    def sources(self) -> list[tuple[str, ColumnSource]]:
        """Return each column, and ``arrived``, with the source of its values."""
        return [*self.columns.items(), *([("arrived", self.arrived)] if self.arrived else [])]

    @property
    def arrival(self) -> ColumnSource | None:
        """Return the source of the time by which rows are put into days."""
        return self.arrived or self.columns.get("event_time") or self.columns.get("request_time")


class LogMapping(_Strict):
    """Facts about the whole log; most of them go into the manifest."""

    name: str = "my log"
    time_zone: str = Field("UTC", description="Of times without a zone, and of days.")
    encoding: str | None = Field(
        None, description="Of files that are not Unicode, e.g. 'cp1251'; found out without it."
    )
    daily_days: int = Field(3, ge=1, description="The last days land one by one; what is before them is the history.")
    positive_events: tuple[str, ...] = Field(DEFAULT_POSITIVES, min_length=1)
    prediction_window_days: float = Field(28.0, gt=0, le=MAXIMUM_WINDOW_DAYS)
    repeats_count: bool = True
    onsite_events: bool = False

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        try:
            known = name is None or b"a,1".decode(name) is not None
        except UnicodeDecodeError:  # an encoding that needs more than a byte for a letter
            known = True
        except (LookupError, ValueError):  # none, or what Python has beside encodings of text: rot13, hex
            known = False
        if not known:
            raise ValueError(f"{name!r} is no encoding of text that Python knows; name one like 'cp1251'")
        return name

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no time zone; name one like 'Europe/Berlin'") from error
        return name

    @field_validator("positive_events")
    @classmethod
    def _known_events(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(EVENT_NAMES)):
            raise ValueError(f"{unknown} are no event names; known are {', '.join(EVENT_NAMES)}")
        return names


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
            MappingError: the file is missing, is no TOML, or breaks a rule.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8-sig")))
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

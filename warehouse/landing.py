"""The landing zone: an export job, the synthetic world and every importer write it.

``landing/<table>/history/`` holds the rows that arrived before the first daily run,
``landing/<table>/date=YYYY-MM-DD/`` the rows that arrived on a day, ``landing/manifest.toml`` the facts that the files
do not hold.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from warehouse.contracts import DEFAULT_POSITIVES, EVENT_NAMES, LandingTable
from warehouse.home import write_atomically

FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)
"""The days that a folder may name: the clock of no log is before the first or after the last."""

MAXIMUM_WINDOW_DAYS = 3650.0
WRITTEN_BY_THE_SERVICE = (LandingTable.funnel_sample, LandingTable.feedback)
HISTORY = "history"
MANIFEST = "manifest.toml"
FILES_OF_THE_ROOT = (MANIFEST, "world.json")  # a synthetic world describes itself in the second file
_DAY = re.compile(r"date=([0-9]{4}-[0-9]{2}-[0-9]{2})")


class ManifestError(ValueError):
    """manifest.toml breaks a rule; the message names the field and what to do."""


FIELDS_OF_BEFORE = {"interests_from"}


class Manifest(BaseModel):
    """Facts that the landing files do not hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("my log", description="Shown in reports.")
    positive_events: list[str] = Field(
        list(DEFAULT_POSITIVES), min_length=1, description="Event names that count as conversions."
    )
    prediction_window_days: float = Field(
        28.0, gt=0, le=MAXIMUM_WINDOW_DAYS, description="K: a positive lies within K days of the cut-off."
    )
    time_zone: str = Field("UTC", description="Days begin at midnight of this zone.")
    synthetic: bool = Field(False, description="No row is about a person: users then have the same keys everywhere.")
    onsite_events: bool = Field(
        False, description="Whether clicked and converted impressions are events of the user's sequence, too."
    )
    repeats_count: bool = Field(
        True, description="Whether an item of the user's own history may be a positive and a candidate again."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_fields_of_before(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Drop fields that earlier versions wrote and nothing reads."""
        return {name: value for name, value in values.items() if name not in FIELDS_OF_BEFORE}

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read ``manifest.toml``; a missing file means the defaults.

        Raises:
            ManifestError: not TOML, an unknown field, a wrong type, or an unknown event name.
        """
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        return _manifest(path, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))

    @classmethod
    def parse(cls, path: Path) -> Manifest:
        """Read ``manifest.toml`` of the disk, whatever was read before. Raises as ``read``."""
        try:
            manifest = cls.model_validate(tomllib.loads(path.read_text("utf-8-sig")))
        except tomllib.TOMLDecodeError as error:
            raise ManifestError(f"{path} is not valid TOML: {error}") from error
        except UnicodeDecodeError as error:
            raise ManifestError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ManifestError(
                f"{path}: field {'.'.join(map(str, first['loc']))!r}: {first['msg']}. Correct it or remove the line."
            ) from error
        unknown = sorted(set(manifest.positive_events) - set(EVENT_NAMES))
        if unknown:
            raise ManifestError(f"{path}: positive_events names {unknown}; known are {', '.join(EVENT_NAMES)}.")
        try:
            ZoneInfo(manifest.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ManifestError(
                f"{path}: time_zone {manifest.time_zone!r} is not known. Name an IANA zone, e.g. 'America/New_York'."
            ) from error
        return manifest

    def to_toml(self) -> str:
        """Return the manifest as TOML text, each field below its description."""
        lines = ["# Facts that the landing files do not hold."]
        for name, value in self:
            # A JSON string, number, boolean or list of them is TOML too.
            lines += ["", f"# {Manifest.model_fields[name].description}"]
            lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}"]
        return "\n".join(lines) + "\n"


@lru_cache(maxsize=16)
def _manifest(path: Path, _: tuple[int, ...]) -> Manifest:
    """Return a manifest, read once for each state of its file: each request to the service asks for the time zone."""
    return Manifest.parse(path)


@dataclass(frozen=True)
class Landing:
    """One landing zone.

    Attributes:
        root: the directory.
        recorded_history_day: the day that the history counts as in a home that has ingested it. Daily folders on or
            before that day are not read. None: the day before the first daily folder.
    """

    root: Path
    recorded_history_day: date | None = None

    @property
    def manifest(self) -> Manifest:
        return Manifest.read(self.root / MANIFEST)

    def write_manifest(self, manifest: Manifest) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / MANIFEST, manifest.to_toml().encode())

    def today(self) -> date:
        """Return the current day in the zone of the manifest."""
        return datetime.now(ZoneInfo(self.manifest.time_zone)).date()

    def dates(self) -> list[date]:
        """Return the arrival days that have a folder in any table of the log and come after the history, ascending.

        What the service writes of its own accord makes no day: a day has landed when somebody lands its log. Until
        then the service's rows wait.
        """
        tables = (self.root / table for table in LandingTable if table not in WRITTEN_BY_THE_SERVICE)
        folders = (folder for table in tables if table.is_dir() for folder in table.iterdir())
        days = {day_of_folder(folder.name) for folder in folders if folder.is_dir()}
        first = self.recorded_history_day or date.min
        return sorted(day for day in days if day is not None and day > first)

    def history_day(self) -> date | None:
        """Return the recorded day, or the day before the first daily folder; None without a daily folder."""
        if self.recorded_history_day is not None:
            return self.recorded_history_day
        dates = self.dates()
        return dates[0] - timedelta(days=1) if dates else None

    def folder(self, table: LandingTable, day: date | None) -> Path:
        """Return the folder of a table's arrivals on ``day``; the folder of the history for None."""
        return self.root / table / (HISTORY if day is None else f"date={day.isoformat()}")

    def files(self, table: LandingTable, day: date | None) -> list[Path]:
        """Return the data files in name order. Hidden and temporary names (a file still being written) are not data."""
        folder = self.folder(table, day)
        if not folder.is_dir():
            return []
        return sorted(
            path
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith("_") and not is_being_written(path.name)
        )

    def write(self, table: LandingTable, day: date | None, frame: pl.DataFrame, part: str = "part-0") -> Path:
        """Write one Parquet file, atomically. ``day`` None is the history."""
        folder = self.folder(table, day)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{part}.parquet"
        temporary = folder / f".{part}.{os.getpid()}.tmp"
        try:
            frame.write_parquet(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path


def day_of_folder(name: str) -> date | None:
    """Return the arrival day that a folder's name states; None for a name that is not the name of a daily folder."""
    named = _DAY.fullmatch(name)
    if named is None:
        return None
    try:
        day = date.fromisoformat(named[1])
    except ValueError:
        return None
    return day if FIRST_DAY <= day <= LAST_DAY else None


def shown(path: Path) -> str:
    """Return a path as text that any terminal can show: bytes that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def is_utf8(path: Path) -> bool:
    """Return whether a path is UTF-8. The libraries that read data files can open no other path."""
    return shown(path) == str(path)


def is_being_written(name: str) -> bool:
    """Return whether a name says that a writer has not finished the file or folder."""
    return name.startswith(".") or name.endswith((".tmp", ".part"))

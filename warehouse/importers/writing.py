"""What importers share: a landing zone that appears whole or not at all, and the summary of an import."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from warehouse.contracts import LandingTable
from warehouse.landing import Landing


class SourceError(ValueError):
    """The source or the target of an import is not usable; the message says what was looked for and what to do."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote.

    Attributes:
        events, users, items, impressions: rows written.
        advertisers: distinct advertisers, without the unknown one.
        first_time, last_time: of the events written, UTC.
        history_until: last day of the history.
        days: the daily partitions, ascending.
        left_out: events of the source that were not written (see the importer).
    """

    events: int
    users: int
    items: int
    advertisers: int
    impressions: int
    first_time: datetime
    last_time: datetime
    history_until: date
    days: tuple[date, ...]
    left_out: int

    def lines(self) -> list[str]:
        """The summary for people, a fact a line."""
        lines = [
            f"{self.events:,} events of {self.users:,} users, {self.first_time:%Y-%m-%d} to {self.last_time:%Y-%m-%d}",
            f"{self.items:,} items of {self.advertisers:,} known advertisers",
            f"history until {self.history_until}, daily partitions {', '.join(map(str, self.days))}",
        ]
        if self.impressions:
            lines.insert(2, f"{self.impressions:,} impressions")
        if self.left_out:
            lines.append(f"{self.left_out:,} events after {self.days[-1]} left out")
        return lines


def require_files(source: Path, names: Sequence[str], what: str) -> None:
    """Check that the source folder holds the files of the log.

    Raises:
        SourceError: naming the file that was looked for.
    """
    for name in names:
        if not (source / name).is_file():
            raise SourceError(
                f"{source / name} does not exist. The importer of {what} looks for {' and '.join(names)} in one "
                "folder; name the folder that holds them."
            )


@contextmanager
def staged(landing: Landing) -> Iterator[Landing]:
    """A landing zone beside the wanted one, renamed to it when the block ends well: never half an import.

    Raises:
        SourceError: there is something at the target already; an import never mixes with other data, nor deletes it.
    """
    root = landing.root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SourceError(f"{root} is not empty. Import into a new directory, or remove this one first.")
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = root.with_name(f".{root.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield Landing(temporary)
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sink(landing: Landing, table: LandingTable, day: date | None, frame: pl.LazyFrame) -> None:
    """Stream rows to one Parquet file of a day (None: the history), without holding them in memory."""
    folder = landing.folder(table, day)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".part-0.{os.getpid()}.tmp"
    frame.sink_parquet(temporary, engine="streaming")
    temporary.rename(folder / "part-0.parquet")


def write_by_day(
    landing: Landing, table: LandingTable, frame: pl.DataFrame, days: Sequence[date], day_column: str = "day"
) -> None:
    """Write rows to the daily partition of their ``day_column``; those before the first of ``days`` to the history."""
    landing.write(table, None, frame.filter(pl.col(day_column) < days[0]).drop(day_column))
    for day in days:
        landing.write(table, day, frame.filter(pl.col(day_column) == day).drop(day_column))

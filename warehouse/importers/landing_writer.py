"""The shared part of importers: a landing zone that appears whole or not at all, and the summary of an import."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import LandingTable
from warehouse.landing import Landing, Manifest


class SourceError(ValueError):
    """The source or the target of an import is not usable; the message says why, and names a remedy."""


@dataclass(frozen=True)
class ImportSummary:
    """The rows and days that an import wrote.

    Attributes:
        events, users, items, impressions, ads: rows written.
        advertisers: distinct advertisers, without the unknown one.
        first_time, last_time: of the events written, UTC.
        history_until: last day of the history.
        days: the daily partitions, ascending.
        left_out: events of the source that were not written, by the reason in words.
        requests_left_out: requests of the source whose impressions were not written, by the reason in words.
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
    left_out: Mapping[str, int]
    ads: int = 0
    requests_left_out: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the summary for people, a fact a line."""
        lines = [
            f"{self.events:,} events of {self.users:,} users, {self.first_time:%Y-%m-%d} to {self.last_time:%Y-%m-%d}",
            f"{self.items:,} items of {self.advertisers:,} known advertisers",
            f"history until {self.history_until}, daily partitions {', '.join(map(str, self.days))}",
        ]
        counts = ((self.ads, "ads"), (self.impressions, "impressions"))
        lines[2:2] = [f"{count:,} {what}" for count, what in counts if count]
        left_out = (("events", self.left_out), ("requests", self.requests_left_out))
        return lines + [
            f"{count:,} {what} left out: {reason}"
            for what, reasons in left_out
            for reason, count in reasons.items()
            if count
        ]


@dataclass(frozen=True)
class Log:
    """A whole log in contract columns, as an importer has read it.

    Attributes:
        events: the events' columns.
        items, users: their columns, and ``day`` where a row arrived on a day of its own; without it, or null: with the
            history (items), with the first event (users).
        manifest: facts that the files do not hold; the manifest's time zone makes the days.
        left_out, requests_left_out: as ``ImportSummary`` has them.
        ads, impressions: their columns and ``day``, which is no day after the last event; None where the log has none.
            A row of a day without a partition arrives with the next one.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    manifest: Manifest
    left_out: Mapping[str, int] = field(default_factory=dict)
    ads: pl.DataFrame | None = None
    impressions: pl.DataFrame | None = None
    requests_left_out: Mapping[str, int] = field(default_factory=dict)


def write_log(log: Log, landing: Landing, daily_days: int) -> ImportSummary:
    """Write a log into an empty or new landing zone.

    The last ``daily_days`` days with events become daily partitions, everything before them the history.

    Raises:
        SourceError: the log has too few days, or the landing zone is not empty.
    """
    day = pl.col("event_time").dt.convert_time_zone(log.manifest.time_zone).dt.date()
    events = log.events.with_columns(day=day).sort("event_time", "event_id", "user_id")
    days = events["day"].drop_nulls().unique().sort().to_list()
    if not 1 <= daily_days < len(days):
        raise SourceError(
            f"the log has {len(days)} distinct days; {daily_days} daily partitions need at least one more for the "
            "history. Choose between 1 and the number of days less one (--daily-days)."
        )
    daily = days[-daily_days:]
    before = daily[0] - timedelta(days=1)
    first_seen = events.group_by("user_id").agg(first=pl.col("day").min())
    users = log.users.join(first_seen, on="user_id", how="left").with_columns(day=pl.col("first").fill_null(before))
    named = pl.concat([log.items["advertiser_id"], events["advertiser_id"]]).drop_nulls()
    items = log.items if "day" in log.items.columns else log.items.with_columns(day=pl.lit(None, pl.Date))
    with staged(landing) as zone:
        write_by_day(zone, LandingTable.events, events, days=daily)
        write_by_day(zone, LandingTable.items, items.with_columns(pl.col("day").fill_null(before)), days=daily)
        write_by_day(zone, LandingTable.users, users.drop("first"), days=daily)
        for table, frame in ((LandingTable.ads, log.ads), (LandingTable.impressions, log.impressions)):
            if frame is not None:
                write_by_day(zone, table, _on_next_of(daily, frame), days=daily)
        zone.write_manifest(log.manifest)
    return ImportSummary(
        events=events.height,
        users=users.height,
        items=items["item_id"].n_unique(),
        advertisers=named.filter(named != UNKNOWN_ADVERTISER).n_unique(),
        impressions=0 if log.impressions is None else log.impressions.height,
        first_time=events["event_time"].min(),  # type: ignore[arg-type]
        last_time=events["event_time"].max(),  # type: ignore[arg-type]
        history_until=before,
        days=tuple(daily),
        left_out=log.left_out,
        ads=0 if log.ads is None else log.ads.height,
        requests_left_out=log.requests_left_out,
    )


def _on_next_of(days: Sequence[date], frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with ``day`` moved to the next of ``days``; a row before the first of them keeps its day."""
    following = pl.Series("following", days).to_frame().set_sorted("following")
    moved = frame.sort("day").join_asof(following, left_on="day", right_on="following", strategy="forward")
    day = pl.when(pl.col("day") < days[0]).then("day").otherwise("following")
    return moved.with_columns(day=day).drop("following")


def require_files(source: Path, names: Sequence[str], what: str) -> None:
    """Check that the source folder holds the files of the log.

    Raises:
        SourceError: a file is missing; the message names the file.
    """
    for name in names:
        if not (source / name).is_file():
            raise SourceError(
                f"{source / name} does not exist. The importer of {what} looks for {' and '.join(names)} in one "
                "folder; name the folder that holds them."
            )


@contextmanager
def staged(landing: Landing) -> Iterator[Landing]:
    """Yield a landing zone beside the wanted one, renamed to it when the block ends well: never half an import.

    Raises:
        SourceError: the target is not empty; an import never mixes with other data, nor deletes other data.
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
    """Stream rows to one Parquet file of a day (None: the history). The rows are never all in memory."""
    folder = landing.folder(table, day)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".part-0.{os.getpid()}.tmp"
    frame.sink_parquet(temporary, engine="streaming")
    temporary.rename(folder / "part-0.parquet")


def write_by_day(
    landing: Landing, table: LandingTable, frame: pl.DataFrame, *, days: Sequence[date], day_column: str = "day"
) -> None:
    """Write rows to the daily partition of their ``day_column``; rows before the first of ``days`` to the history."""
    landing.write(table, None, frame.filter(pl.col(day_column) < days[0]).drop(day_column))
    for day in days:
        landing.write(table, day, frame.filter(pl.col(day_column) == day).drop(day_column))

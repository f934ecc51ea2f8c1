"""Writing a world into a landing zone: the history in bulk, or one daily partition at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from warehouse.contracts import LandingTable
from warehouse.home import write_atomically
from warehouse.landing import Landing, Manifest
from warehouse.world.dynamics import World
from warehouse.world.log import EVENT_SCHEMA, LONGEST_DELAY_DAYS, Arrivals, deliver, log_sessions
from warehouse.world.market.ads import Ads
from warehouse.world.market.impression_log import IMPRESSION_SCHEMA, LOG_SCHEMA, log_impressions
from warehouse.world.market.raters import rate
from warehouse.world.settings import WorldSettings
from warehouse.world.simulation import Day, build_world, live

WORLD_FILE = "world.json"
PREDICTION_WINDOW_DAYS = 28.0


@dataclass(frozen=True)
class WorldSummary:
    """Rows written, the history and the daily partitions together, and the daily days."""

    events: int
    items: int
    users: int
    ads: int
    impressions: int
    relevance_labels: int
    days: tuple[date, ...]


def is_world(landing_root: Path) -> bool:
    """Return whether a landing zone holds a synthetic world of this edition, so that there is an oracle for it."""
    try:
        read_settings(landing_root)
    except (FileNotFoundError, AnotherEdition):
        return False
    return True


class AnotherEdition(ValueError):
    """The landing zone holds a world that another version of adseq wrote, by other rules."""


def read_settings(landing_root: Path) -> WorldSettings:
    """Return the settings with which a landing zone was generated.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        AnotherEdition: the world has settings that this version does not know.
        ValueError: the file is damaged.
    """
    path = landing_root / WORLD_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {landing_root} holds no synthetic world, so there is no oracle.")
    try:
        return WorldSettings.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ValueError(f"{path} is damaged: {first['msg']}. Restore the file, or write a new world.") from error
        place = ".".join(map(str, first["loc"]))
        raise AnotherEdition(
            f"{path}: field {place!r} is not of this version's synthetic world. There is no oracle for the log, and no "
            "further day of it. The log itself can be used like any other; `adseq demo --home NEW` writes a new world."
        ) from error


def write_world(landing: Landing, settings: WorldSettings, days: int) -> WorldSummary:
    """Write the history and ``days`` daily partitions of every table, ``manifest.toml`` and ``world.json``.

    Raises:
        ValueError: ``days`` is negative, or the landing zone holds a world with other settings.
    """
    if days < 0:
        raise ValueError(f"days is {days}; the number of daily partitions must be 0 or more.")
    _refuse_another_world(landing, settings)
    first = settings.history_days
    world = build_world(settings, first + days - 1)
    arrivals: list[Arrivals] = []
    impressions: list[pl.DataFrame] = []
    summary = WorldSummary(0, 0, 0, 0, 0, 0, tuple(settings.day_date(first + offset) for offset in range(days)))
    for day in live(world, first + days - 1):
        arrivals.append(deliver(world, log_sessions(world, day.sessions, day.number), day.number))
        impressions.append(_logged(world, day))
        if day.number == first - 1:
            history = _write_history(landing, world, day.market.ads, arrivals=arrivals, impressions=impressions)
            summary = _count(summary, history)
        if day.number >= first:
            recent = arrivals[-1 - LONGEST_DELAY_DAYS :]
            written = _write_daily(landing, world, day, arrivals=recent, impressions=impressions[-2:])
            summary = _count(summary, written)
    manifest = Manifest(
        synthetic=True,
        name="synthetic world",
        prediction_window_days=PREDICTION_WINDOW_DAYS,
        repeats_count=False,
        onsite_events=True,
    )
    landing.write_manifest(manifest)
    write_atomically(landing.root / WORLD_FILE, (settings.model_dump_json(indent=2) + "\n").encode())
    return summary


def write_day(landing: Landing, settings: WorldSettings, day: date) -> WorldSummary:
    """Write one daily partition with the same rows as ``write_world``; touch no other partition.

    Raises:
        ValueError: the day belongs to the history, or the landing zone holds a world with other settings.
    """
    number = settings.day_number(day)
    if number < settings.history_days:
        raise ValueError(
            f"{day} lies before the first daily day, {settings.first_daily_day}: write_world writes the history."
        )
    _refuse_another_world(landing, settings)
    world = build_world(settings, number)
    arrivals: list[Arrivals] = []
    impressions: list[pl.DataFrame] = []
    summary = WorldSummary(0, 0, 0, 0, 0, 0, (day,))
    for lived in live(world, number):
        if lived.number >= number - LONGEST_DELAY_DAYS:
            arrivals.append(deliver(world, log_sessions(world, lived.sessions, lived.number), lived.number))
        if lived.number >= number - 1:
            impressions.append(_logged(world, lived))
        if lived.number == number:
            written = _write_daily(landing, world, lived, arrivals=arrivals, impressions=impressions)
            summary = _count(summary, written)
    return summary


def _refuse_another_world(landing: Landing, settings: WorldSettings) -> None:
    if (landing.root / WORLD_FILE).is_file() and read_settings(landing.root) != settings:
        raise ValueError(
            f"{landing.root / WORLD_FILE} holds other settings than those given: two worlds would mix. "
            "Use its settings, or another landing zone."
        )


def _write_history(
    landing: Landing, world: World, ads: Ads, *, arrivals: list[Arrivals], impressions: list[pl.DataFrame]
) -> dict[LandingTable, int]:
    """Write the history. Raters judge a day after the request, so ``impressions`` of the last day have no label yet."""
    last = world.settings.history_days - 1
    items, users = world.catalogue.items, world.population
    judged = pl.concat(impressions[:-1])
    events = [
        arrival.on(day)
        for arrival in arrivals
        for day in range(arrival.day, min(arrival.day + LONGEST_DELAY_DAYS, last) + 1)
    ]
    return _write_tables(
        landing,
        None,
        {
            LandingTable.events: _concatenate(events, EVENT_SCHEMA),
            LandingTable.items: world.catalogue.frame(np.flatnonzero(items.first_day <= last), last),
            LandingTable.users: users.frame(np.flatnonzero(users.joined <= last)),
            LandingTable.ads: ads.frame(np.flatnonzero(ads.first_day <= last), last),
            LandingTable.impressions: _concatenate(impressions, IMPRESSION_SCHEMA),
            LandingTable.relevance_labels: rate(world, judged, day=last, pairs=world.settings.relevance_labels),
        },
    )


def _write_daily(
    landing: Landing, world: World, day: Day, *, arrivals: list[Arrivals], impressions: list[pl.DataFrame]
) -> dict[LandingTable, int]:
    """Write the partition of a day.

    Args:
        impressions: of the day before, which raters judge on this day, and of the day.
    """
    items, users, ads = world.catalogue.items, world.population, day.market.ads
    before, today = impressions
    changed, _ = world.catalogue.price_changes(day.number)
    rows = np.concatenate([changed, np.flatnonzero(items.first_day == day.number)])
    return _write_tables(
        landing,
        world.settings.day_date(day.number),
        {
            LandingTable.events: _concatenate([arrival.on(day.number) for arrival in arrivals], EVENT_SCHEMA),
            LandingTable.items: world.catalogue.frame(rows, day.number),
            LandingTable.users: users.frame(np.flatnonzero(users.joined == day.number)),
            LandingTable.ads: ads.frame(ads.arrivals(day.number), day.number),
            LandingTable.impressions: _concatenate([today], IMPRESSION_SCHEMA),
            LandingTable.relevance_labels: rate(world, before, day=day.number, pairs=world.settings.labels_per_day),
        },
    )


def _logged(world: World, day: Day) -> pl.DataFrame:
    """Return the impression log of a day; no row before there were ads."""
    if day.onsite is None:
        return pl.DataFrame(schema=LOG_SCHEMA)
    return log_impressions(world, day.market.ads, day.onsite)


def _write_tables(
    landing: Landing, day: date | None, frames: dict[LandingTable, pl.DataFrame]
) -> dict[LandingTable, int]:
    for table, frame in frames.items():
        landing.write(table, day, frame)
    return {table: frame.height for table, frame in frames.items()}


def _concatenate(frames: Iterable[pl.DataFrame], schema: pl.Schema) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=schema), *(frame.select(list(schema)) for frame in frames)], rechunk=True)


def _count(summary: WorldSummary, rows: dict[LandingTable, int]) -> WorldSummary:
    return replace(summary, **{table.value: getattr(summary, table.value) + number for table, number in rows.items()})

"""A day against the days before, on four weeks of a log whose every figure is known."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from settings import DataSettings, QualitySettings
from warehouse.contracts import LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.quality import Finding, figures_by_day, findings, judged_shared_ids, shared_event_ids
from warehouse.tables import Tables

DAY = date(2026, 3, 30)  # a Monday
ZONE = "America/New_York"
MEMORY = 0.25  # GiB
A_DAY = 40  # events; on Mondays twice as many
FEW = QualitySettings(minimum_events=10)


def events(day: date, count: int, **fields: Sequence[Any]) -> pl.DataFrame:
    """Events of noon: half views and half purchases, of ten users and four items."""
    rows = range(count)
    columns = {
        "event_id": [f"{day}-{row}" for row in rows],
        "user_id": [f"u{row % 10}" for row in rows],
        "event_time": [datetime(day.year, day.month, day.day, 16, tzinfo=UTC)] * count,
        "event_name": ["page_visit" if row % 2 else "checkout" for row in rows],
        "item_id": [f"i{row % 4}" for row in rows],
    }
    return pl.DataFrame({**columns, **fields})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three weeks of history and one of daily days; what is known of items and users."""
    root = tmp_path_factory.mktemp("log")
    landing, tables = Landing(root / "landing"), Tables(root / "tables")
    landing.write_manifest(Manifest(time_zone=ZONE))
    first_daily = DAY - timedelta(days=7)
    before = [DAY - timedelta(days=number) for number in range(28, 0, -1)]
    of_day = {day: events(day, A_DAY * (2 if day.weekday() == 0 else 1)) for day in before}
    landing.write(LandingTable.events, None, pl.concat(frame for day, frame in of_day.items() if day < first_daily))
    for day in before[-7:]:
        landing.write(LandingTable.events, day, of_day[day])
    items = {"item_id": ["i0", "i1", "i2"], "category": ["a", "b", None], "price": [1.0, None, None]}
    landing.write(LandingTable.items, None, pl.DataFrame({**items, "advertiser_id": ["x", "x", "x"]}))
    landing.write(LandingTable.users, None, pl.DataFrame({"user_id": ["u0", "u1"], "age": [30, None]}))
    for arrived in [None, *before[-7:]]:
        arrive(landing, tables, arrived)
    return root


@pytest.fixture
def log(written: Path, tmp_path: Path) -> tuple[Landing, Tables]:
    """A copy of its own."""
    root = Path(shutil.copytree(written, tmp_path / "copy"))
    return Landing(root / "landing"), Tables(root / "tables")


def arrive(landing: Landing, tables: Tables, day: date | None) -> None:
    for table in LandingTable:
        if landing.files(table, day) or not tables.exists(table.value):
            ingest(landing, tables, table, day=day, settings=DataSettings())


def judged(log: tuple[Landing, Tables], frame: pl.DataFrame, settings: QualitySettings = FEW) -> dict[str, Finding]:
    landing, tables = log
    landing.write(LandingTable.events, DAY, frame)
    arrive(landing, tables, DAY)
    found = findings(figures_by_day(tables, landing, DAY, MEMORY), landing, DAY, settings)
    return {finding.figure if finding.name == "coverage" else finding.name: finding for finding in found}


def test_a_day_like_the_others_has_the_figures_worked_out_by_hand(log: tuple[Landing, Tables]) -> None:
    found = judged(log, events(DAY, 80))
    assert not any(finding.warns or finding.stops for finding in found.values())
    assert {name: (finding.value, finding.expected) for name, finding in found.items()} == {
        "volume": (80, 80),  # the Mondays', not the week's
        "newest_event": (12, None),  # noon in New York in summer
        "lateness": (0, None),
        "quarantine": (0, None),
        "event_mix": (0, 0),
        "items_named": (1, 1),
        "item_known": (0.75, 0.75),
        "category_known": (0.5, 0.5),
        "price_known": (0.25, 0.25),
        "advertiser_known": (0.75, 0.75),
        "users_with_demographics": (pytest.approx(0.1), pytest.approx(0.1)),
    }


UNKNOWN = [f"sku-{row}" for row in range(80)]
MOSTLY_UNKNOWN = ["i3" if row % 4 == 1 else f"i{row % 4}" for row in range(80)]
NOBODY = [None if row < 2 else "u0" for row in range(80)]
ELEVEN_AT_NIGHT = [datetime(2026, 3, 30, 3, tzinfo=UTC)] * 80  # of the day before, in New York
THE_DAY_BEFORE_THAT = [datetime(2026, 3, 29, 3, tzinfo=UTC)] * 80


@pytest.mark.parametrize(
    ("frame", "check", "value", "stops"),
    [
        (events(DAY, 30), "volume", 30, False),
        (events(DAY, 80, item_id=["i3"] * 80, advertiser_id=["unknown"] * 80), "advertiser_known", 0.0, True),
        (events(DAY, 161), "volume", 161, False),
        (events(DAY, 80, item_id=UNKNOWN), "item_known", 0.0, True),
        (events(DAY, 80, item_id=[None] * 80, advertiser_id=["x"] * 80), "items_named", 0.0, True),
        (events(DAY, 80, item_id=MOSTLY_UNKNOWN), "item_known", 0.5, False),
        (events(DAY, 80, event_name=["page_visit"] * 80), "event_mix", 0.5, False),
        (events(DAY, 80, event_name=["lead"] * 80), "event_mix", 1.0, True),
        (events(DAY, 80, event_time=ELEVEN_AT_NIGHT), "lateness", 1.0, False),
        (events(DAY, 80, event_time=THE_DAY_BEFORE_THAT), "newest_event", 36.0, False),
        (events(DAY, 80, user_id=NOBODY), "quarantine", 2 / 80, False),
    ],
)
def test_what_is_beyond_a_bound_warns_or_stops(
    log: tuple[Landing, Tables], frame: pl.DataFrame, check: str, value: float, stops: bool
) -> None:
    found = judged(log, frame)
    assert found[check].value == pytest.approx(value)
    assert (found[check].warns, found[check].stops) == (True, stops)


def test_a_day_without_events_warns_and_stops_only_where_that_is_asked_for(log: tuple[Landing, Tables]) -> None:
    found = judged(log, events(DAY, 0))
    assert set(found) == {"volume", "newest_event"}  # there is nothing to take shares of
    assert (found["volume"].warns, found["volume"].stops) == (True, False)
    strict = findings(
        figures_by_day(log[1], log[0], DAY, MEMORY), log[0], DAY, FEW.model_copy(update={"volume_stop": 0.1})
    )
    assert [finding.name for finding in strict if finding.stops] == ["volume"]


def test_a_log_s_first_days_are_not_held_against_what_was_not_there(landing: Landing, tables: Tables) -> None:
    landing.write(LandingTable.events, DAY - timedelta(days=1), events(DAY - timedelta(days=1), 3))
    for day in (DAY - timedelta(days=1), DAY):
        arrive(landing, tables, day)
    found = judged((landing, tables), events(DAY, 80))
    assert set(found) == {"volume", "newest_event", "lateness", "quarantine"}
    assert (found["volume"].expected, found["volume"].warns) == (None, False)


def test_a_catalogue_that_loses_its_traits_is_seen_on_its_day(log: tuple[Landing, Tables]) -> None:
    """As the model sees it: the newest version of an item counts, as a whole, and days before keep what they knew."""
    poorer = {"item_id": ["i0", "i1", "i2"], "category": [None, None, None], "price": [1.0, 1.0, 1.0]}
    types = {"item_id": pl.String, "category": pl.String, "price": pl.Float64}
    log[0].write(LandingTable.items, DAY, pl.DataFrame(poorer, schema=types))
    found = judged(log, events(DAY, 80))
    assert (found["category_known"].value, found["category_known"].expected) == (0, 0.5)
    assert found["category_known"].warns
    assert (found["price_known"].value, found["price_known"].warns) == (0.75, False)


def test_shares_of_a_few_are_not_judged(log: tuple[Landing, Tables]) -> None:
    few = events(DAY, 80, event_name=["search"] * 80, item_id=["nobody's"] * 5 + [None] * 75)
    found = judged(log, few, FEW.model_copy(update={"mix_stop": 1.0}))
    assert "item_known" not in found
    assert found["items_named"].value == 5 / 80


def test_an_event_of_tomorrow_does_not_hide_that_today_s_feed_is_old(log: tuple[Landing, Tables]) -> None:
    landing, tables = log
    ahead = events(DAY - timedelta(days=1), 1, event_id=["ahead"], event_time=[datetime(2026, 3, 30, 20, tzinfo=UTC)])
    landing.write(LandingTable.events, DAY - timedelta(days=1), ahead)
    arrive(landing, tables, DAY - timedelta(days=1))
    found = judged(log, events(DAY, 0))
    assert found["newest_event"].value == 24  # the end of yesterday at the most
    found = judged(log, events(DAY, 80, event_time=THE_DAY_BEFORE_THAT))
    assert found["newest_event"].value == 24


def test_shared_event_ids_are_counted(landing: Landing, tables: Tables) -> None:
    """Of the day and of days before, of other users only, in time that grows with the log and not with the pairs."""
    landing.write(LandingTable.events, DAY - timedelta(days=1), events(DAY, 3, event_id=["a", "b", "c"]))
    ids, users = ["a", "b", "x", "x", "y", "z"], ["u0", "another", "u0", "another", "u0", "u0"]
    landing.write(LandingTable.events, DAY, events(DAY, 6, event_id=ids, user_id=users))
    landing.write(LandingTable.events, DAY + timedelta(days=1), events(DAY, 1, event_id=["z"], user_id=["another"]))
    for day in (-1, 0, 1):
        ingest(landing, tables, LandingTable.events, day=DAY + timedelta(days=day), settings=DataSettings())
    shared = shared_event_ids(tables, DAY, MEMORY)
    assert shared == 3  # b and twice x; z is shared from tomorrow on, and a is the same event again
    figures = pl.DataFrame({"day": [DAY], "events": [5]})
    found = {
        warn: judged_shared_ids(shared, figures, DAY, QualitySettings(minimum_events=5, shared_ids_warn=warn))
        for warn in (0.5, 0.7)
    }
    assert [(each.value, each.warns, each.stops) for each in found.values()] == [(3, True, False), (3, False, False)]

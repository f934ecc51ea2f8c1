"""``adseq validate`` reads a landing zone as the home that it belongs to does."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from pipelines.cli.validate import validate_landing
from settings import DataSettings
from tests.warehouse.ingest.arrivals import event
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

DAY, EVENTS = date(2014, 7, 20), LandingTable.events
HAPPENED = datetime(2014, 7, 19, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that has ingested a history and a day."""
    home = Home(tmp_path / "home")
    landing = Landing(home.landing)
    for day in (None, DAY):
        landing.write(EVENTS, day, pl.DataFrame([event(str(day), event_time=HAPPENED)]))
    for day in (None, DAY):
        ingest(landing, Tables(home.tables), EVENTS, day=day, settings=DataSettings())
    return home


def said(landing: Landing, home: Home) -> str:
    console = Console(file=io.StringIO(), width=300)
    validate_landing(landing, home, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_that_came_late_and_a_folder_that_is_too_early_are_named(home: Home) -> None:
    landing = Landing(home.landing)
    late = landing.write(EVENTS, DAY, pl.DataFrame([event("late", event_time=HAPPENED)]), "late")
    early = landing.write(EVENTS, DAY - timedelta(days=9), pl.DataFrame([event("early")])).parent
    printed = said(landing, home)
    assert f"Not in the tables: {late} came" in printed
    assert f"Not read: {early}: this home's history counts as arrived on 2014-07-19" in printed
    assert "quarantined" not in printed.split("Not in the tables")[1]


def test_of_another_home_only_the_names_are_judged(home: Home, tmp_path: Path) -> None:
    landing = Landing(home.landing)
    landing.write(EVENTS, DAY, pl.DataFrame([event("late", event_time=HAPPENED)]), "late")
    (landing.root / "item").mkdir()
    printed = said(landing, Home(tmp_path / "another"))
    assert "Not in the tables" not in printed
    assert "rename it to items" in printed


def test_a_broken_history_without_a_daily_folder_is_a_problem_and_no_error(home: Home) -> None:
    landing = Landing(home.root / "other")
    landing.write(EVENTS, None, pl.DataFrame([event("1", event_name="unheard of")]))
    assert "A run would stop" in said(landing, home)


def test_a_year_typed_wrong_is_named_where_it_stops_the_history(home: Home, tmp_path: Path) -> None:
    landing = Landing(home.landing)
    typed = landing.write(EVENTS, date(2004, 7, 20), pl.DataFrame([event("typed")])).parent
    printed = said(landing, Home(tmp_path / "another"))
    assert f"the day before the first daily folder, {typed}: if that date is wrong, rename the folder" in printed

"""The day that a history counts as is recorded when it is ingested, and no folder changes it afterwards."""

from __future__ import annotations

import shutil
from datetime import date, timedelta

import pytest

from settings import DataSettings
from tests.warehouse.ingest.arrivals import DAY, EVENTS, ITEMS, NOON, arrive, event, ids
from warehouse.arrival_days import history_day, listing_of
from warehouse.ingest.arrival import QuarantineExceeded, ingest
from warehouse.ingest.read import LandingError
from warehouse.landing import Landing
from warehouse.tables import Tables

HISTORY_DAY = DAY - timedelta(days=1)
SETTINGS = DataSettings()


@pytest.fixture
def ingested(landing: Landing, tables: Tables) -> Tables:
    """A history, which counts as the day before, and one day."""
    arrive(landing, [event("old", event_time=NOON - timedelta(days=9))], None)
    arrive(landing, [event("new")])
    for day in (None, DAY):
        ingest(landing, tables, EVENTS, day=day, settings=SETTINGS)
    return tables


def test_an_earlier_folder_changes_nothing_and_is_named(landing: Landing, ingested: Tables) -> None:
    late = arrive(landing, [event("late", event_time=NOON - timedelta(days=5))], HISTORY_DAY)
    ingest(landing, ingested, EVENTS, day=None, settings=SETTINGS)  # again, as Dagster may
    assert history_day(ingested, landing) == HISTORY_DAY
    assert ids(ingested, HISTORY_DAY) == ["old"]
    assert listing_of(ingested, landing).days == (DAY,)
    assert [unread.path for unread in listing_of(ingested, landing).unread] == [late.parent]
    with pytest.raises(LandingError, match="move its files into the folder of a newer day"):
        ingest(landing, ingested, EVENTS, day=HISTORY_DAY, settings=SETTINGS)
    assert ids(ingested, HISTORY_DAY) == ["old"]


def test_the_rows_of_a_refused_folder_take_their_place_from_a_newer_one(landing: Landing, ingested: Tables) -> None:
    arrive(landing, [event("late", event_time=NOON - timedelta(days=5))], DAY, "late")
    assert ingest(landing, ingested, EVENTS, day=DAY, settings=SETTINGS).late == 1
    assert ids(ingested) == ["late", "new"]


def test_the_history_stays_where_it_is_when_the_first_folder_goes(landing: Landing, ingested: Tables) -> None:
    arrive(landing, [event("next", event_time=NOON + timedelta(days=7))], DAY + timedelta(days=7))
    shutil.rmtree(landing.folder(EVENTS, DAY))
    ingest(landing, ingested, EVENTS, day=None, settings=SETTINGS)
    assert ids(ingested, HISTORY_DAY) == ["old"]
    assert ingested.days("events", "arrival_date") == [HISTORY_DAY, DAY]


def test_a_year_typed_wrong_names_its_folder_and_records_nothing(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("old", event_time=NOON - timedelta(days=9))], None)
    arrive(landing, [event("new")])
    typed = arrive(landing, [event("new")], date(2006, 3, 10)).parent
    with pytest.raises(QuarantineExceeded, match="if that date is wrong, rename the folder") as error:
        ingest(landing, tables, EVENTS, day=None, settings=SETTINGS)
    assert str(typed) in str(error.value)
    shutil.rmtree(typed)
    ingest(landing, tables, EVENTS, day=None, settings=SETTINGS)
    assert history_day(tables, landing) == HISTORY_DAY
    assert ids(tables, HISTORY_DAY) == ["old"]


def test_a_history_without_rows_records_no_day(landing: Landing, tables: Tables) -> None:
    arrive(landing, [event("new")])
    ingest(landing, tables, ITEMS, day=None, settings=SETTINGS)
    arrive(landing, [event("before")], HISTORY_DAY)
    assert history_day(tables, landing) == HISTORY_DAY - timedelta(days=1)

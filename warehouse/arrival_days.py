"""The day that each arrival counts as, in a home: the home records the day of its history, and no folder changes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.home_record import HOME_FORMAT, HomeRecord
from warehouse.ingest.read import LandingError
from warehouse.landing import Landing
from warehouse.listing import Listing, list_landing, on_or_before_history
from warehouse.tables import Tables


def landing_of(tables: Tables, landing: Landing) -> Landing:
    """Return the landing zone as the home of the tables reads it, with the day that the home recorded.

    Raises:
        HomeRecordError: the record of the home cannot be read.
    """
    return replace(landing, recorded_history_day=recorded_history_day(tables))


def history_day(tables: Tables, landing: Landing) -> date | None:
    """Return the day that the history counts as.

    Return the recorded day. Before the first ingestion return the day before the first daily folder, or None where
    nothing has landed.

    Raises:
        HomeRecordError: the record of the home cannot be read.
    """
    return landing_of(tables, landing).history_day()


def recorded_history_day(tables: Tables) -> date | None:
    """Return the day that the home recorded when it ingested its history; None before that ingestion.

    Raises:
        HomeRecordError: the record of the home cannot be read.
    """
    record = HomeRecord.read(_home(tables))
    return record.history_day if record else None


def record_history_day(tables: Tables, day: date) -> None:
    """Record the day of the history, once: a later call changes nothing.

    Raises:
        HomeRecordError: the record of the home cannot be read.
    """
    home = _home(tables)
    record = HomeRecord.read(home) or HomeRecord(format=HOME_FORMAT)
    if record.history_day is None:
        record.model_copy(update={"history_day": day}).write(home)


def listing_of(tables: Tables, landing: Landing) -> Listing:
    """List the landing zone as the home of the tables reads it."""
    return list_landing(landing_of(tables, landing))


def arrival_day(tables: Tables, landing: Landing, day: date | None) -> date:
    """Return the day that an arrival counts as: ``day`` itself, or the day of the history for None.

    Raises:
        LandingError: there is no daily folder that dates the history, or ``day`` is on or before the recorded day.
    """
    recorded = recorded_history_day(tables)
    if day is None:
        return recorded or required_history_day(landing)
    if recorded is not None and day <= recorded:
        raise LandingError(f"{landing.root}/*/date={day}: {on_or_before_history(recorded)}.")
    return day


def required_history_day(landing: Landing) -> date:
    """Return the day that the history of a landing zone counts as.

    Raises:
        LandingError: there is no daily folder that dates the history.
    """
    day = landing.history_day()
    if day is None:
        raise LandingError(
            f"{landing.root}: the history counts as arrived on the day before the first daily folder, and there is no "
            "folder named date=YYYY-MM-DD in any table. Move the newest day's rows into a daily folder, "
            "e.g. events/date=2026-01-31/."
        )
    return day


def history_dated_by(landing: Landing, day: date) -> str:
    """Return a sentence on why the history counts as ``day``: a date typed wrong is in the name of one folder."""
    after = day + timedelta(days=1)
    folders = [folder for table in LandingTable if (folder := landing.folder(table, after)).is_dir()]
    if not folders:
        return f"The history counts as arrived on {day}."
    named = " and ".join(str(folder) for folder in folders)
    return (
        f"The history counts as arrived on {day}, the day before the first daily folder, {named}: if that date is "
        "wrong, rename the folder."
    )


def why_not_past(landing: Landing) -> str | None:
    """Return why the history cannot be ingested yet, or None: the first daily folder may be dated after today."""
    day = landing.history_day()
    if day is None or day < landing.today():
        return None
    return f"The first daily folder is dated after today. {history_dated_by(landing, day)}"


def _home(tables: Tables) -> Home:
    """Return the home whose tables these are."""
    return Home(tables.root.parent)

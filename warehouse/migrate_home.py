"""The steps from one format of a home to the next. Each step can be repeated, and writes the record last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta

import polars as pl

from warehouse.contracts import LandingTable
from warehouse.day_records import adopt_arrivals
from warehouse.home import LANDING_POINTER, Home
from warehouse.home_record import HomeRecord, HomeRecordError
from warehouse.identity import IDENTITIES, UserKeys, secret_path
from warehouse.landing import Landing
from warehouse.move_home import follow_home
from warehouse.tables import Tables


class MigrationImpossible(HomeRecordError):
    """A home cannot be brought to the next format; says why, and what to do instead."""


def _record(home: Home) -> str:
    """Migrate a home from format 0 to 1: write the record with the day that the history counts as."""
    tables, landing = Tables(home.tables), Landing(home.landing)
    if not secret_path(tables).exists() and not tables.exists(IDENTITIES):
        raise MigrationImpossible(
            f"{home.root} is from before users had keys: its tables, states and models know users by their ids, and "
            "nothing can give them keys. Begin a new home on the same landing zone: "
            f"adseq run --home NEW --landing {landing.root}"
        )
    UserKeys.of(tables, landing)
    day = _history_day(tables, landing)
    if (home.root / LANDING_POINTER).is_file():
        home.use_landing(landing.root)
    follow_home(home)
    adopt_arrivals(tables, landing, day)
    HomeRecord(format=1, history_day=day).write(home)
    return f"home.json records that the history counts as arrived on {day}" if day else "home.json is written"


STEPS: Mapping[int, Callable[[Home], str]] = {0: _record}
"""Format -> what brings a home from it to the next one; returns what was done, for people."""


def _history_day(tables: Tables, landing: Landing) -> date | None:
    """Return the day that the history was ingested as; None where nothing was ingested.

    The history is the first arrival. Where the history has no files, the tables hold no row of the history, and the
    first arrival is the first daily day, unless a model was trained as of an earlier day.
    """
    arrivals = [day for table in LandingTable for day in tables.days(table.value, "arrival_date")]
    trained = []
    if tables.exists("model_versions"):
        trained = tables.scan("model_versions").select(pl.col("trained_day")).collect()["trained_day"].to_list()
    if not arrivals:
        return min(trained, default=None)
    first = min(arrivals)
    has_history = any(landing.files(table, None) for table in LandingTable)
    if has_history or min(trained, default=date.max) <= first:
        return min([first, *trained])
    return first - timedelta(days=1)

"""A home through days, late and replaced files, re-runs in any order and forgotten users equals a fresh home.

The machine keeps a home up to date as ``adseq run`` does: it ingests what is new, and what is out of date, in the order
of the days. Whatever happened before, the tables then equal those of a home that ingests the landing zone once.
"""

from __future__ import annotations

import os
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from polars.testing import assert_frame_equal

from benchmarks.stages import rows_at_hand
from settings import DataSettings, SequenceSettings
from tests.warehouse.ingest.arrivals import DAY, EVENTS, NOON, event
from tests.warehouse.whole_sequences import user_sequences
from warehouse.contracts import LandingTable
from warehouse.day_records import (
    COMPLETED_DAYS,
    LANDED_FILES,
    adopt_arrivals,
    history_changes,
    record_arrival,
    record_completed,
    record_rewritten,
    standings,
    unsettled_days,
    untouched_files,
)
from warehouse.forget import add_tombstones, forget_in_landing, forget_in_tables, forgotten_users
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landed_files import ChangeKind, files_of
from warehouse.landing import Landing, Manifest
from warehouse.sequences import SEQUENCE_SCHEMA
from warehouse.states import STATE_SCHEMA, USER_STATES, outdated_days, write_states
from warehouse.tables import Tables

DAYS = [DAY + timedelta(days=number) for number in range(2)]
IMPRESSIONS = LandingTable.impressions
USERS = ("ann", "bob", "cy")
SETTINGS, SHAPE = DataSettings(maximum_quarantine_share=1.0), SequenceSettings(length=4, lookback_days=30)

numbers = st.integers(0, 5)
places = st.sampled_from([None, *DAYS])


def run_day(landing: Landing, tables: Tables, day: date | None) -> None:
    """What the daily assets of the warehouse do."""
    for table in (EVENTS, IMPRESSIONS):
        ingest(landing, tables, table, day=day, settings=SETTINGS)
    if day is not None:
        tables.write("user_sequences", user_sequences(tables, landing, day, settings=SHAPE), {"day": day})
        record_completed(tables, day)


def content(tables: Tables) -> dict[str, pl.DataFrame]:
    """Every row that the days have made, in an order of its own."""
    frames = {}
    for name in ("events", "impressions", "quarantine_events", "identities", "user_sequences"):
        frame = tables.scan(name).collect()
        frames[name] = frame.sort(
            [column for column in frame.columns if column not in SEQUENCE_SCHEMA or column == "user_id"]
        )
    return {**frames, "events": frames["events"].sort("arrival_date", "user_id", "event_id")}


class DaysOfAHome(RuleBasedStateMachine):
    """Rules change the landing zone or run days; the invariant is a fresh home."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        root = Path(self.directory.name)
        self.landing, self.tables = Landing(root / "landing"), Tables(root / "home" / "tables")
        self.ran: set[date] = set()
        self.files: set[Path] = set()

    def teardown(self) -> None:
        """Whatever happened: once what is due has run, the tables are those of a fresh home."""
        with self.directory:
            self.what_is_due_runs()
            fresh = Tables(Path(self.directory.name) / "fresh" / "tables")
            UserKeys.of(fresh, self.landing)
            add_tombstones(fresh, forgotten_users(self.tables), DAY)  # whose rows may arrive again
            for day in (None, *sorted(self.ran)):
                run_day(self.landing, fresh, day)
            expected = content(fresh)
            for name, frame in content(self.tables).items():
                assert_frame_equal(frame, expected[name], check_row_order=False)

    @initialize()
    def begin(self) -> None:
        self.landing.write_manifest(Manifest(synthetic=True, onsite_events=True))  # the same keys in every home
        self.write(None, 0, ["ann", "bob"])
        self.write(DAYS[0], 1, ["ann"])
        run_day(self.landing, self.tables, None)

    def write(self, day: date | None, number: int, users: list[str]) -> Path:
        """A file of a day whose event ids other days have, too."""
        happened: datetime = NOON - timedelta(days=20 - number) if day is None else NOON + timedelta(hours=number)
        rows: list[dict[str, Any]] = [
            event(f"{user}-{number}", user_id=user, item_id=str(day), event_time=happened) for user in users
        ]
        # First, so that forgetting another user leaves its row number, which quarantine names, as it is.
        rows.insert(0, event(f"bad-{number}", user_id=users[0], event_name="unheard of"))
        path = self.landing.write(EVENTS, day, pl.DataFrame(rows, infer_schema_length=None), f"part-{number}")
        self.files.add(path)
        return path

    @rule(day=places, number=numbers, users=st.lists(st.sampled_from(USERS), min_size=1, max_size=3, unique=True))
    def a_file_comes_or_is_replaced(self, day: date | None, number: int, users: list[str]) -> None:
        self.write(day, number, users)

    @rule(
        day=places,
        number=numbers,
        user=st.sampled_from(USERS),
        stages=st.lists(st.sampled_from(["impressed", "clicked", "converted"]), min_size=1, max_size=3),
    )
    def impressions_come_or_are_replaced(self, day: date | None, number: int, user: str, stages: list[str]) -> None:
        """Of requests that other days tell of, too, with another stage or another user."""
        happened = NOON - timedelta(days=20 - number) if day is None else NOON - timedelta(hours=6 * number)
        rows = [
            {"request_id": f"r{place}", "request_time": happened, "user_id": user, "surface": "home_feed"}
            | {"item_id": "i", "stage": stage}
            for place, stage in enumerate(stages)
        ]
        self.files.add(self.landing.write(IMPRESSIONS, day, pl.DataFrame(rows), f"part-{number}"))

    @precondition(lambda self: len(self.files) > 1)
    @rule(data=st.data())
    def a_file_goes(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.files)))
        path.unlink()
        self.files.remove(path)

    @rule(user=st.sampled_from(USERS))
    def a_user_is_forgotten(self, user: str) -> None:
        before = self.out_of_date()
        untouched = untouched_files(self.tables, self.landing)
        keys = UserKeys.of(self.tables, self.landing).keys(pl.Series("user_id", [user])).rename("user_id")
        add_tombstones(self.tables, keys, DAY)
        removed = forget_in_landing(self.landing, [user]).removed
        forget_in_tables(self.tables, keys)
        record_rewritten(self.tables, self.landing, untouched & set(removed))
        assert self.out_of_date() == before

    @rule(day=st.sampled_from(DAYS))
    def a_day_runs_out_of_turn(self, day: date) -> None:
        run_day(self.landing, self.tables, day)
        self.ran.add(day)

    @rule(day=st.sampled_from(DAYS))
    def a_day_is_killed_after_its_ingestion(self, day: date) -> None:
        ingest(self.landing, self.tables, EVENTS, day=day, settings=SETTINGS)
        self.ran.add(day)

    @rule()
    def what_is_due_runs(self) -> None:
        if history_changes(self.tables, self.landing):
            run_day(self.landing, self.tables, None)
        for day in sorted({*(day for day in self.landing.dates() if day >= DAYS[0]), *self.ran}):
            if day not in self.ran or day in self.out_of_date():
                run_day(self.landing, self.tables, day)
                self.ran.add(day)
        assert not self.out_of_date()
        assert not history_changes(self.tables, self.landing)

    @invariant()
    def the_history_keeps_its_day(self) -> None:
        if self.tables.exists("events"):
            arrived = self.tables.days("events", "arrival_date")
            assert all(day >= DAYS[0] - timedelta(days=1) for day in arrived)

    def out_of_date(self) -> set[date]:
        return {each.day for each in standings(self.tables, self.landing) if not each.up_to_date}


TestDaysOfAHome = DaysOfAHome.TestCase
TestDaysOfAHome.settings = settings(
    max_examples=5, stateful_step_count=7, deadline=None, suppress_health_check=list(HealthCheck)
)
pytest.mark.slow(TestDaysOfAHome)


def test_a_file_that_comes_changes_or_goes_is_named_and_the_days_after_it_are_out_of_date(
    landing: Landing, tables: Tables
) -> None:
    files = {day: landing.write(EVENTS, day, pl.DataFrame([event(str(day))])) for day in (None, *DAYS)}
    for day in files:
        run_day(landing, tables, day)
    assert all(each.up_to_date and not each.changes for each in standings(tables, landing))
    came = landing.write(EVENTS, DAYS[1], pl.DataFrame([event("late")]), "late")
    replaced = landing.write(EVENTS, DAYS[1], pl.DataFrame([event("other")]))
    first, second = standings(tables, landing)
    assert first.up_to_date
    assert [(each.kind, each.path) for each in second.changes] == [
        (ChangeKind.came, came),
        (ChangeKind.changed, replaced),
    ]
    assert not second.up_to_date
    came.unlink()
    files[DAYS[0]].unlink()
    landing.write(EVENTS, DAYS[1], pl.DataFrame([event(str(DAYS[1]))]))  # as it was
    first, second = standings(tables, landing)
    assert [(each.kind, each.path) for each in first.changes] == [(ChangeKind.went, files[DAYS[0]])]
    assert not second.changes
    assert not second.up_to_date


def test_a_day_that_was_ingested_again_and_killed_is_not_up_to_date(landing: Landing, tables: Tables) -> None:
    landing.write(EVENTS, None, pl.DataFrame([event("old", event_time=NOON - timedelta(days=9))]))
    landing.write(EVENTS, DAY, pl.DataFrame([event("1")]))
    for day in (None, DAY):
        run_day(landing, tables, day)
    landing.write(EVENTS, DAY, pl.DataFrame([event("2")]))
    ingest(landing, tables, EVENTS, day=DAY, settings=SETTINGS)  # and then it dies
    (standing,) = standings(tables, landing)
    assert not standing.changes
    assert not standing.up_to_date
    landing.write(EVENTS, DAY, pl.DataFrame([event("1")]))  # as it was when the day last ran to its end
    (standing,) = standings(tables, landing)
    assert standing.changes
    assert not standing.up_to_date


def test_a_day_that_was_ingested_after_other_arrivals_and_killed_is_not_up_to_date(
    landing: Landing, tables: Tables
) -> None:
    files = {day: landing.write(EVENTS, day, pl.DataFrame([event(str(day))])) for day in (None, *DAYS)}
    for day in files:
        run_day(landing, tables, day)
    landing.write(EVENTS, DAYS[0], pl.DataFrame([event(str(DAYS[1]))]))  # the id of the event of the day after
    run_day(landing, tables, DAYS[0])
    ingest(landing, tables, EVENTS, day=DAYS[1], settings=SETTINGS)  # which loses that event, and dies
    landing.write(EVENTS, DAYS[0], pl.DataFrame([event(str(DAYS[0]))]))  # as it was
    run_day(landing, tables, DAYS[0])
    assert [each.up_to_date for each in standings(tables, landing)] == [True, False]


def test_content_and_not_times_say_that_a_file_changed(landing: Landing, tables: Tables) -> None:
    landing.write(EVENTS, None, pl.DataFrame([event("old", event_time=NOON - timedelta(days=9))]))
    path = landing.write(EVENTS, DAY, pl.DataFrame([event("1")]))
    for day in (None, DAY):
        run_day(landing, tables, day)
    stat = path.stat()
    path.write_bytes(path.read_bytes())  # another time, the same content
    assert standings(tables, landing)[0].up_to_date
    changed = bytearray(path.read_bytes())
    changed[-20] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time, another content
    assert standings(tables, landing)[0].changes


def test_a_home_from_before_records_adopts_what_lies_in_its_landing_zone(landing: Landing, tables: Tables) -> None:
    landing.write(EVENTS, None, pl.DataFrame([event("old", event_time=NOON - timedelta(days=9))]))
    landing.write(EVENTS, DAY, pl.DataFrame([event("1")]))
    for day in (None, DAY):
        run_day(landing, tables, day)
    for name in (LANDED_FILES, COMPLETED_DAYS):
        shutil.rmtree(tables.path(name))
    record_arrival(tables, EVENTS, DAY, files_of(landing, EVENTS, DAY, ()))  # by a migration that was interrupted
    adopt_arrivals(tables, landing, DAY - timedelta(days=1))
    assert [each.up_to_date for each in standings(tables, landing)] == [True]
    landing.write(EVENTS, None, pl.DataFrame([event("older", event_time=NOON - timedelta(days=9))]), "late")
    assert len(history_changes(tables, landing)) == 1
    assert [each.up_to_date for each in standings(tables, landing)] == [False]


def test_states_inferred_from_other_arrivals_are_named(landing: Landing, tables: Tables) -> None:
    landing.write(EVENTS, None, pl.DataFrame([event("old", event_time=NOON - timedelta(days=9))]))
    landing.write(EVENTS, DAY, pl.DataFrame([event("1")]))
    none = pl.DataFrame(schema=STATE_SCHEMA)
    for day in (None, DAY):
        run_day(landing, tables, day)
        write_states(tables, "item-1", day or DAY - timedelta(days=1), rows_at_hand([none]))
    assert outdated_days(tables, USER_STATES, "item-1") == []
    landing.write(EVENTS, None, pl.DataFrame([event("older", event_time=NOON - timedelta(days=9))]), "late")
    run_day(landing, tables, None)
    assert outdated_days(tables, USER_STATES, "item-1") == [DAY - timedelta(days=1)]
    assert unsettled_days(tables) == {DAY}  # ingested before the history became another one
    write_states(tables, "item-1", DAY - timedelta(days=1), rows_at_hand([none]))
    run_day(landing, tables, DAY)
    assert outdated_days(tables, USER_STATES, "item-1") == [DAY]
    write_states(tables, "item-1", DAY, rows_at_hand([none]))
    assert outdated_days(tables, USER_STATES, "item-1") == []
    assert unsettled_days(tables) == set()

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars._typing import PolarsDataType
from polars.testing import assert_frame_equal

from settings import DataSettings, SequenceSettings
from tests.warehouse.whole_sequences import all_user_sequences, user_sequences
from warehouse.contracts import LandingTable
from warehouse.days import day_end
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.sequences import SEQUENCE_SCHEMA, active_sequences, of_all_buckets
from warehouse.tables import TableMissing, Tables

FIRST = date(2026, 3, 1)
LISTS = ("event_time", "event_name", "item_id", "advertiser_id", "value")


@dataclass(frozen=True)
class Log:
    """A random log: rows by arrival day, and how its sequences are cut."""

    rows: pd.DataFrame
    time_zone: str
    length: int
    lookback_days: int
    order: list[int]

    @property
    def days(self) -> list[date]:
        return [FIRST + timedelta(days=number) for number in range(3)]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Few ids, users and hours, so that duplicates, ties and events on the very edges of windows are common."""
    time_zone = draw(st.sampled_from(["UTC", "Etc/GMT+3"]))
    hours = st.sampled_from([-72, -49, -48, -47, -25, -24, -1, 0, 1, 12, 23, 24, 25, 47])
    row = st.tuples(
        st.integers(0, 2),  # arrival day
        st.integers(0, 25),  # event id: "e10" sorts before "e9"
        st.sampled_from(["ann", "bob", "Ångström", "zoë"]),
        hours,  # of the event, from the beginning of its arrival day
        st.sampled_from(["page_visit", "checkout"]),
        st.sampled_from(["i1", "i2", None]),
        st.sampled_from([None, 0.0, 9.5]),
    )
    names = ["arrival", "event_id", "user_id", "hour", "event_name", "item_id", "value"]
    rows = pd.DataFrame(draw(st.lists(row, max_size=40)), columns=names)
    begins = [day_end(FIRST + timedelta(days=number - 1), time_zone) for number in range(3)]
    times = [begins[arrival] + timedelta(hours=hour) for arrival, hour in zip(rows.arrival, rows.hour, strict=True)]
    rows["event_time"] = pd.Series(times, dtype="datetime64[us, UTC]")
    rows["event_id"] = "e" + rows.event_id.astype(str)
    rows["advertiser_id"] = "shop"
    return Log(
        rows, time_zone, draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.permutations([0, 1, 2]).map(list))
    )


def ingested(log: Log, root: Path) -> tuple[Landing, Tables]:
    """The log through landing files (the days' files written in any order) and ingestion (in arrival order)."""
    landing, tables = Landing(root / "landing"), Tables(root / "tables")
    landing.write_manifest(Manifest(time_zone=log.time_zone))
    types = {
        "event_id": pl.String,
        "user_id": pl.String,
        "event_name": pl.String,
        "item_id": pl.String,
        "value": pl.Float64,
    }
    for number in log.order:
        rows = log.rows[log.rows.arrival == number].drop(columns=["arrival", "hour"])
        columns = {name: [None if pd.isna(value) else value for value in rows[name]] for name in rows.columns}
        schema: dict[str, PolarsDataType] = {
            **types,
            "event_time": pl.Datetime("us", "UTC"),
            "advertiser_id": pl.String,
        }
        landing.write(LandingTable.events, log.days[number], pl.DataFrame(columns, schema_overrides=schema))
    for day in log.days:
        ingest(landing, tables, LandingTable.events, day=day, settings=DataSettings())
    return landing, tables


def reference(log: Log, number: int) -> dict[str, list[tuple[object, ...]]]:
    """Sequences as of a day, slowly: user -> list of (event_time, event_name, item_id, advertiser_id, value)."""
    first_arrival = log.rows.sort_values(["arrival", "event_time"], kind="stable").drop_duplicates(
        ["user_id", "event_id"]
    )
    end = pd.Timestamp(day_end(log.days[number], log.time_zone))
    seen = first_arrival[(first_arrival.arrival <= number) & (first_arrival.event_time < end)]
    active = set(seen.user_id[seen.arrival == number])
    window = seen[seen.event_time >= end - pd.Timedelta(days=log.lookback_days)]
    sequences = {}
    for user, rows in window[window.user_id.isin(active)].groupby("user_id"):
        newest = rows.sort_values(["event_time", "event_id"]).tail(log.length)
        values = [[None if pd.isna(value) else value for value in newest[name]] for name in LISTS]
        sequences[str(user)] = list(zip(*values, strict=True))
    return sequences


def as_dict(frame: pl.DataFrame) -> dict[str, list[tuple[object, ...]]]:
    return {row["user_id"]: list(zip(*(row[name] for name in LISTS), strict=True)) for row in frame.to_dicts()}


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(log=logs())
def test_sequences_equal_a_slow_reference_and_full_equals_incremental(log: Log) -> None:
    cut = SequenceSettings(length=log.length, lookback_days=log.lookback_days)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patched:
        patched.setattr("warehouse.sequences.USERS_OF_A_SORT", 2)
        landing, tables = ingested(log, Path(directory))
        keys = UserKeys.of(tables, landing)
        newest: dict[str, list[tuple[object, ...]]] = {}
        for number, day in enumerate(log.days):
            expected = {keys.key(user): events for user, events in reference(log, number).items()}
            daily = user_sequences(tables, landing, day, settings=cut)
            assert as_dict(daily) == expected
            assert daily["user_id"].is_sorted()
            # A user whose every event left the window on their last active day has no sequence as of then.
            first_arrival = log.rows.sort_values(["arrival", "event_time"], kind="stable").drop_duplicates(
                ["user_id", "event_id"]
            )
            end = pd.Timestamp(day_end(day, log.time_zone))
            active = first_arrival[(first_arrival.arrival == number) & (first_arrival.event_time < end)].user_id
            newest = {key: row for key, row in newest.items() if key not in set(map(keys.key, active))} | expected
            assert as_dict(all_user_sequences(tables, landing, day, settings=cut)) == newest


def write_events(tables: Tables, day: date, rows: list[tuple[str, str, datetime]]) -> None:
    frame = pl.DataFrame(
        [
            {"event_id": event_id, "user_id": user, "event_time": time, "event_name": "checkout", "item_id": "i"}
            for event_id, user, time in rows
        ]
    ).with_columns(advertiser_id=pl.lit(None, pl.String), value=pl.lit(None, pl.Float64))
    tables.write("events", frame.cast({"event_time": pl.Datetime("us", "UTC")}), {"arrival_date": day})


def test_the_edges_of_the_window_by_hand(landing: Landing, tables: Tables) -> None:
    end = datetime(2026, 3, 2, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    times = [end - timedelta(days=2) - tick, end - timedelta(days=2), end - tick, end]
    write_events(tables, FIRST, [(str(number), "u", time) for number, time in enumerate(times)])
    frame = user_sequences(tables, landing, FIRST, settings=SequenceSettings(lookback_days=2))
    assert frame["event_time"].to_list() == [[times[1], times[2]]]
    assert frame.schema == pl.Schema(SEQUENCE_SCHEMA)


def test_ties_follow_the_event_id_and_the_cut_keeps_the_newest(landing: Landing, tables: Tables) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    write_events(tables, FIRST, [(name, "u", noon) for name in ("b", "d", "a", "c")])
    rows = pl.DataFrame({"item_id": ["item of b", "item of d", "item of a", "item of c"]})
    frame = tables.read("events", {"arrival_date": FIRST}).with_columns(rows["item_id"])
    tables.write("events", frame, {"arrival_date": FIRST})
    sequences = user_sequences(tables, landing, FIRST, settings=SequenceSettings(length=2))
    assert sequences["item_id"].to_list() == [["item of c", "item of d"]]


def test_an_old_day_gives_the_same_rows_after_later_days_arrived(landing: Landing, tables: Tables) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    write_events(tables, FIRST, [("1", "u", noon), ("2", "v", noon)])
    before = user_sequences(tables, landing, FIRST, settings=SequenceSettings())
    late = [("3", "u", noon - timedelta(hours=1)), ("4", "w", noon)]
    write_events(tables, FIRST + timedelta(days=1), late)
    assert_frame_equal(user_sequences(tables, landing, FIRST, settings=SequenceSettings()), before)
    after = user_sequences(tables, landing, FIRST + timedelta(days=1), settings=SequenceSettings())
    assert after["user_id"].to_list() == ["u", "w"]
    assert after["event_time"].to_list()[0] == [noon - timedelta(hours=1), noon]


def test_a_day_without_events_has_no_sequences(landing: Landing, tables: Tables) -> None:
    with pytest.raises(TableMissing):
        user_sequences(tables, landing, FIRST, settings=SequenceSettings())
    ingest(landing, tables, LandingTable.events, day=FIRST, settings=DataSettings())
    for build in (user_sequences, all_user_sequences):
        frame = build(tables, landing, FIRST, settings=SequenceSettings())
        assert frame.is_empty()
        assert frame.schema == pl.Schema(SEQUENCE_SCHEMA)
    write_events(tables, FIRST, [("1", "u", datetime(2026, 3, 1, 12, tzinfo=UTC))])
    frame = user_sequences(tables, landing, FIRST + timedelta(days=1), settings=SequenceSettings())
    assert frame.is_empty()
    assert frame.schema == pl.Schema(SEQUENCE_SCHEMA)


def test_an_event_after_the_end_of_its_arrival_day_makes_nobody_active(landing: Landing, tables: Tables) -> None:
    end = datetime(2026, 3, 2, tzinfo=UTC)
    second = FIRST + timedelta(days=1)
    write_events(tables, FIRST - timedelta(days=1), [("1", "u", end - timedelta(days=2))])
    write_events(tables, FIRST, [("2", "u", end)])
    cut = SequenceSettings()
    assert user_sequences(tables, landing, FIRST, settings=cut).is_empty()
    assert all_user_sequences(tables, landing, FIRST, settings=cut)["event_time"].to_list() == [
        [end - timedelta(days=2)]
    ]
    write_events(tables, second, [("3", "u", end + timedelta(hours=1))])
    times = user_sequences(tables, landing, second, settings=cut)["event_time"].to_list()
    assert times == [[end - timedelta(days=2), end, end + timedelta(hours=1)]]


def test_the_number_of_buckets_changes_no_row(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    landing, tables = Landing(tmp_path / "landing"), Tables(tmp_path / "tables")
    landing.write_manifest(Manifest())
    rows = pd.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(900)],
            "user_id": [f"u{user}" for user in random.integers(0, 90, 900)],
            "event_time": pd.Timestamp(FIRST, tz="UTC") + pd.to_timedelta(random.integers(0, 24, 900), unit="h"),
            "event_name": "checkout",
            "item_id": "i1",
        }
    )
    landing.write(LandingTable.events, FIRST, pl.from_pandas(rows))
    ingest(landing, tables, LandingTable.events, day=FIRST, settings=DataSettings())
    shape = SequenceSettings(length=5)
    whole, some, many = (
        active_sequences(tables, landing, [FIRST], settings=shape, data=DataSettings(bucket_events=events))
        for events in (1_000, 100, 30)
    )
    assert [len(each.buckets) for each in (whole, some, many)] == [1, 9, 30]
    assert not list(of_all_buckets(active_sequences(tables, landing, [], settings=shape)))
    expected = pl.concat(of_all_buckets(whole))
    assert len(expected) == rows.user_id.nunique()
    for each in (some, many):
        assert_frame_equal(pl.concat(of_all_buckets(each)), expected)

"""A model of any shape gets its own sequences, whatever shape the table holds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.local import LocalEngine
from settings import DataSettings, SequenceSettings
from tests.warehouse.whole_sequences import user_sequences
from warehouse.landing import Landing
from warehouse.stored_sequences import SHAPE_SCHEMA, TABLE, sequences_of_day, write_sequences
from warehouse.tables import Tables

DAY = date(2026, 3, 1)
SHAPES = [SequenceSettings(length=length, lookback_days=days) for length in (1, 3) for days in (1, 5)]


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Two users with an event every twelve hours."""
    end = datetime(2026, 3, 2, tzinfo=UTC)
    rows = [(user, f"{user}{number}", end - timedelta(hours=12 * number + 1)) for user in "uv" for number in range(8)]
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "event_id": pl.String, "event_time": None}, orient="row")
    frame = frame.with_columns(
        pl.col("event_time").cast(pl.Datetime("us", "UTC")),
        event_name=pl.lit("checkout"),
        item_id=pl.col("event_id"),
        advertiser_id=pl.lit(None, pl.String),
        value=pl.lit(None, pl.Float64),
    )
    tables = Tables(tmp_path / "tables")
    tables.write("events", frame, {"arrival_date": DAY})
    return tables


@pytest.mark.parametrize("stored", SHAPES, ids=str)
@pytest.mark.parametrize("wanted", SHAPES, ids=str)
def test_a_shape_has_its_own_sequences(
    landing: Landing, tables: Tables, stored: SequenceSettings, wanted: SequenceSettings
) -> None:
    write_sequences(tables, landing, DAY, shape=stored, data=DataSettings(), engine=LocalEngine())
    expected = user_sequences(tables, landing, DAY, settings=wanted)
    assert_frame_equal(sequences_of_day(tables, landing, DAY, shape=wanted, data=DataSettings()), expected)


def test_the_stored_rows_are_read_where_their_shape_is_wanted(landing: Landing, tables: Tables) -> None:
    write_sequences(tables, landing, DAY, shape=SHAPES[0], data=DataSettings(), engine=LocalEngine())
    tables.write("events", tables.read("events", {"arrival_date": DAY}).head(0), {"arrival_date": DAY})
    assert len(sequences_of_day(tables, landing, DAY, shape=SHAPES[0], data=DataSettings())) == 2
    assert not len(sequences_of_day(tables, landing, DAY, shape=SHAPES[1], data=DataSettings()))


def test_rows_of_before_the_shape_was_stored_are_computed_anew(landing: Landing, tables: Tables) -> None:
    expected = user_sequences(tables, landing, DAY, settings=SHAPES[3])
    tables.write(TABLE, user_sequences(tables, landing, DAY, settings=SHAPES[0]), {"day": DAY})
    assert_frame_equal(sequences_of_day(tables, landing, DAY, shape=SHAPES[3], data=DataSettings()), expected)
    later = DAY + timedelta(days=1)
    # The table has the columns from now on.
    write_sequences(tables, landing, later, shape=SHAPES[0], data=DataSettings(), engine=LocalEngine())
    assert tables.read(TABLE, {"day": DAY}).select(list(SHAPE_SCHEMA)).null_count().row(0) == (2, 2, 2)
    assert_frame_equal(sequences_of_day(tables, landing, DAY, shape=SHAPES[3], data=DataSettings()), expected)

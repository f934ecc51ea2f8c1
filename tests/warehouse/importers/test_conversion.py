"""Numbers and times as people and machines write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.importers.conversion import TIME_FORMAT, expression, number_text
from warehouse.importers.mapping import ColumnSource
from warehouse.ingest.read import times_of_text

TIME = pl.Datetime("us", "UTC")


def number(text: str, decimal: str) -> float | None:
    found = pl.DataFrame({"x": [text]}).select(number_text(pl.col("x"), decimal).cast(pl.Float64))["x"][0]
    return None if found is None else float(found)


@settings(max_examples=50)
@given(
    cents=st.integers(0, 10**9),
    decimal=st.sampled_from(".,"),
    grouped=st.booleans(),
    around=st.sampled_from(["{}", "{} USD", "USD {}", "€{}", "{} €", "Rs. {}", "{}\u00a0zł", "$ {}"]),
    negative=st.booleans(),
)
def test_numbers_as_people_write_them(cents: int, decimal: str, grouped: bool, around: str, negative: bool) -> None:
    text = f"{cents / 100:,.2f}" if grouped else f"{cents / 100:.2f}"
    text = text.translate({ord(","): "." if decimal == "," else ",", ord("."): decimal})
    expected = -cents / 100 if negative else cents / 100
    assert number(around.format(f"-{text}" if negative else text), decimal) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["12.99", "1,299.00", "12-15", "free", "", "1.2.3", "12 34", "5 or 6"])
def test_what_is_no_number_with_a_decimal_comma_is_none(text: str) -> None:
    assert number(text, ",") is None


def read(source: dict[str, Any], texts: list[str], zone: str = "UTC") -> list[str | None]:
    rows = pl.DataFrame({"t": texts}, schema={"t": pl.String})
    written = expression(
        ColumnSource.model_validate({"column": "t", **source}), TIME, zone, names=["t"], plausible=True
    )
    return rows.select(written.alias("t"))["t"].to_list()


BOUNDS = (datetime(1990, 1, 2, tzinfo=UTC), datetime(2099, 12, 30, tzinfo=UTC))
SECONDS = st.integers(*(int(bound.timestamp()) for bound in BOUNDS))


@settings(max_examples=12)
@given(
    seconds=st.lists(SECONDS, min_size=20, max_size=20),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    auto=st.booleans(),
    decimals=st.sampled_from(["", ".0"]),
)
def test_numbers_since_1970_in_any_unit_with_or_without_decimals(
    seconds: list[int], unit: str, auto: bool, decimals: str
) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    found = read({"unit": "auto" if auto else unit}, [f"{each * factor}{decimals}" for each in seconds])
    for text, expected in zip(found, seconds, strict=True):
        assert text is not None
        time = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        assert abs((time - datetime.fromtimestamp(expected, UTC)).total_seconds()) < 1e-3


TEXTS = st.one_of(
    st.sampled_from(["2026-03-01", "2026-03-01 10:00", "1970-01-01", "9999-12-31", "17739648000001773964800"]),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.text(max_size=12),
)


@settings(max_examples=15)
@given(
    source=st.sampled_from([{}, {"unit": "s"}, {"unit": "ms"}, {"unit": "auto"}, {"format": "%d.%m.%Y"}]),
    texts=st.lists(TEXTS, min_size=30, max_size=30),
)
def test_a_time_that_the_mapping_cannot_read_is_none_to_ingestion_either(
    source: dict[str, Any], texts: list[str]
) -> None:
    """Neither a crash nor another time: what is written is a time between 1990 and 2100, or none."""
    written = pl.DataFrame({"t": read(source, texts)}, schema={"t": pl.String})
    imported = pl.col("t").str.to_datetime(TIME_FORMAT, strict=False)
    frame = written.select("t", landed=times_of_text(pl.col("t")), imported=imported)
    for text, landed, imported in frame.iter_rows():
        assert (landed is None) == (imported is None), text
        assert landed is None or 1990 <= landed.year < 2100


@settings(max_examples=8)
@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    minutes=st.lists(st.integers(0, 365 * 24 * 60), min_size=100, max_size=100),
)
def test_local_times_are_what_the_clock_showed_also_in_the_hour_that_summer_time_leaves_out(
    zone: str, minutes: list[int]
) -> None:
    left_out = [datetime(2026, 3, 29, 2, 23), datetime(2026, 3, 8, 2, 59), datetime(2026, 10, 4, 2, 1)]
    local = left_out + [datetime(2026, 1, 1) + timedelta(minutes=each) for each in minutes]
    expected = [each.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for each in local]  # by the clock before a change
    assert read({}, [f"{each:%Y-%m-%d %H:%M}" for each in local], zone) == [
        f"{each:%Y-%m-%dT%H:%M:%S}.000000Z" for each in expected
    ]


def test_whole_numbers_alternatives_and_defaults() -> None:
    rows = pl.DataFrame({"a": ["12.0", None, "x.0", "12.5"], "b": ["1", "2", None, None]})
    ids = ColumnSource.model_validate({"any_of": ["a", "b", "not there"], "whole_number": True, "default": "none"})
    assert rows.select(expression(ids, pl.String(), "UTC", names=rows.columns).alias("x"))["x"].to_list() == [
        *("12", "2", "x.0", "12.5")
    ]

"""Rows that a query sorted by some columns, put into the order of one more."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from warehouse.spill import in_full_order


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.text("xyz", max_size=2)), max_size=30),
    st.integers(1, 7),
)
def test_ties_are_ordered_whatever_the_batches(rows: list[tuple[str, int, str]], size: int) -> None:
    schema = {"user_id": pl.String(), "time": pl.Int64(), "event_id": pl.String()}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    query = frame.sort("user_id", "time")
    found = pl.concat([frame.clear(), *in_full_order(query.iter_slices(size), ["user_id", "time"], "event_id")])
    assert_frame_equal(found, frame.sort("user_id", "time", "event_id"))

"""Rows of reports: names that tell the protocol, tables that lose nothing, and tables of earlier versions."""

from __future__ import annotations

import re

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ml.evaluation.intervals import Interval
from ml.evaluation.report_rows import (
    Protocol,
    ReportRow,
    Segment,
    figures_by_model,
    rows_frame,
    rows_of,
    rows_of_frame,
    with_bounds,
)

numbers = st.none() | st.floats(allow_nan=False)
rows = st.builds(
    ReportRow,
    model=st.sampled_from(["rule", "contextual"]),
    metric=st.sampled_from(["recall@10", "diversity90"]),
    value=numbers,
    low=numbers,
    high=numbers,
    segment=st.sampled_from(Segment),
    group=st.text(max_size=5),
)


@given(st.lists(rows, max_size=6))
def test_a_table_holds_the_rows(written: list[ReportRow]) -> None:
    assert rows_of_frame(rows_frame(written)) == written


def test_a_table_of_before_bounds_and_segments_is_of_all_queries() -> None:
    old = pl.DataFrame({"model": ["rule"], "metric": ["recall@10"], "value": [0.5]})
    assert rows_of_frame(old) == [ReportRow("rule", "recall@10", 0.5)]


def test_bounds_replace_the_row_of_the_same_figure_only() -> None:
    plain = [
        ReportRow("rule", "recall@10", 0.5),
        ReportRow("rule", "recall@10", 0.4, segment=Segment.country, group="US"),
    ]
    bounded = ReportRow("rule", "recall@10", 0.5, 0.4, 0.6)
    assert with_bounds(plain, [bounded]) == [bounded, plain[1]]


def test_no_two_protocols_share_a_name() -> None:
    row = ReportRow("contextual", "recall@10", 0.5, 0.4, 0.6)
    names = [set(figures_by_model([row], protocol)["contextual"]) for protocol in Protocol]
    assert len(set.union(*names)) == sum(map(len, names)) == 3 * len(Protocol)


def test_groups_of_any_letters_have_names_of_their_own_that_mlflow_takes() -> None:
    rows = [
        ReportRow("rule", "recall@10", 0.5, segment=Segment.country, group=group) for group in ("日本", "中国", "a.b")
    ]
    names = [row.name(Protocol.item) for row in rows]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"[\w.@]+", name, re.ASCII) and name.count(".") == 3 for name in names)


def test_what_is_no_finite_number_is_none() -> None:
    nothing, everything = float("nan"), float("inf")
    assert ReportRow.of("rule", "lift@10", Interval(everything, 3.0, nothing)) == ReportRow(
        "rule", "lift@10", None, 3.0
    )
    assert [row.value for row in rows_of("rule", {"a": nothing, "b": None, "c": 0.5})] == [None, None, 0.5]

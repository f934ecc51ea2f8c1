"""A snapshot is the newest row of each user, whatever was written down in between and whatever is written again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from benchmarks.stages import rows_at_hand
from warehouse.states import (
    USER_STATES,
    candidate_batches,
    candidates_of,
    candidates_snapshot,
    compact,
    snapshot,
    snapshot_batches,
    snapshot_of,
    state_days,
    write_candidates,
    write_states,
)
from warehouse.tables import Tables

FIRST = date(2026, 3, 1)
USERS = "abcdef"


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def states(users: str, number: int, value: float) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": list(users),
            "events": [number] * len(users),
            "last_event_time": [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=number)] * len(users),
            "state": [[value, float(number)]] * len(users),
        },
        schema_overrides={"user_id": pl.String},
    )


def expected(written: dict[int, tuple[str, float]], until: int) -> dict[str, tuple[date, float]]:
    newest: dict[str, tuple[date, float]] = {}
    for number in sorted(written):
        if number <= until:
            users, value = written[number]
            newest |= {user: (day(number), value) for user in users}
    return newest


def found(tables: Tables, until: int) -> dict[str, tuple[date, float]]:
    rows = snapshot(tables, "item-1", day(until)).rows(named=True)
    return {row["user_id"]: (row["day"], row["state"][0]) for row in rows}


Action = tuple[int, str, float, int]


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.text(USERS, max_size=4), st.floats(0, 1, width=32), st.integers(1, 4)),
        min_size=1,
        max_size=12,
    )
)
def test_compaction_changes_no_snapshot(tmp_path_factory: pytest.TempPathFactory, actions: list[Action]) -> None:
    """Days in any order, some again with other users, compacted after each by chance."""
    tables = Tables(tmp_path_factory.mktemp("tables"))
    written: dict[int, tuple[str, float]] = {}
    for number, users, value, after in actions:
        users = "".join(sorted(set(users)))
        write_states(tables, "item-1", day(number), rows_at_hand([states(users, number, value)]))
        written[number] = (users, value)
        compact(tables, USER_STATES, "item-1", day=day(number), after_days=after)
        for until in {max(number - 1, 0), number}:  # the others at the end: a snapshot that is lost stays lost
            assert found(tables, until) == expected(written, until)
    whole = snapshot(tables, "item-1", day(9))
    assert_frame_equal(pl.concat([whole.clear(), *snapshot_batches(tables, "item-1", day(9), 2)]), whole)
    some = pl.Series("user_id", ["a", "c", "z"])
    assert_frame_equal(snapshot_of(tables, "item-1", day(9), some), whole.filter(pl.col("user_id").is_in(["a", "c"])))
    assert [found(tables, until) for until in range(10)] == [expected(written, until) for until in range(10)]
    assert state_days(tables, "item-1") == [day(number) for number, (users, _) in sorted(written.items()) if users]


def test_a_snapshot_reads_few_partitions(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    behind = []
    for number in range(8):
        write_states(tables, "item-1", day(number), rows_at_hand([states("a", number, 0.5)]))
        behind.append(compact(tables, USER_STATES, "item-1", day=day(number), after_days=3))
    assert behind == [1, 2, 0, 1, 2, 0, 1, 2]


def test_versions_are_compacted_apart(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    write_states(tables, "item-1", day(0), rows_at_hand([states("ab", 0, 0.25)]))
    write_states(tables, "item-2", day(0), rows_at_hand([states("b", 0, 0.75)]))
    compact(tables, USER_STATES, "item-1", day=day(0), after_days=1)
    compact(tables, USER_STATES, "item-2", day=day(0), after_days=1)
    write_states(tables, "item-2", day(1), rows_at_hand([states("c", 1, 0.5)]))
    assert snapshot(tables, "item-1", day(1))["user_id"].to_list() == ["a", "b"]
    assert snapshot(tables, "item-2", day(1))["user_id"].to_list() == ["b", "c"]


def test_candidates_are_compacted_too(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    for number in range(3):
        frame = pl.DataFrame({"user_id": ["ab"[number % 2]], "advertiser_ids": [[f"x{number}"]], "scores": [[1.0]]})
        write_candidates(tables, "advertiser-1", day(number), rows_at_hand([frame]))
    before = candidates_snapshot(tables, "advertiser-1", day(2))
    assert_frame_equal(pl.concat(candidate_batches(tables, "advertiser-1", day(2), 1)), before)
    assert candidates_of(tables, "advertiser-1", day(2), pl.Series(["b", "z"]))["user_id"].to_list() == ["b"]
    assert compact(tables, "advertiser_candidates", "advertiser-1", day=day(2), after_days=3) == 0
    assert_frame_equal(candidates_snapshot(tables, "advertiser-1", day(2)), before, check_column_order=False)

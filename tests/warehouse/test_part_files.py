"""A partition that the parts of a stage write: equal to one that a run writes, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from benchmarks.stages import rows_at_hand
from engine.engine import StageRun, Work
from engine.local import LocalEngine
from warehouse.delta_log import LOG, damaged_commits
from warehouse.part_files import write_parts
from warehouse.tables import Tables

DAY, NEXT = date(2026, 1, 1), date(2026, 1, 2)
FRAME = pl.DataFrame({"user_id": ["a", "b", "c", "d"], "items": [["x"], [], None, ["y", "z"]], "n": [1, 2, None, 4]})
HALVES = [FRAME.head(2), FRAME.tail(2)]


def written(tables: Tables, frames: list[pl.DataFrame], **partition: str | date) -> int:
    return write_parts(tables, "t", partition, schema=frames[0].schema, run=rows_at_hand(frames))


def test_parts_make_the_partition_that_a_run_makes(tables: Tables) -> None:
    assert written(tables, [*HALVES, FRAME.clear()], model="m", day=DAY) == 4
    tables.write("whole", FRAME, {"model": "m", "day": DAY})
    assert_frame_equal(tables.scan("t").collect(), tables.scan("whole").collect())
    assert tables.partition_columns("t") == tables.partition_columns("whole")
    assert len(tables.files("t")) == 2


def test_rows_come_in_the_order_of_the_parts(tables: Tables) -> None:
    frames = [pl.DataFrame({"number": [number]}) for number in range(30)]
    written(tables, frames, day=DAY)
    assert tables.read("t", {"day": DAY})["number"].to_list() == list(range(30))


def test_a_partition_is_replaced_whoever_wrote_it(tables: Tables) -> None:
    tables.write("t", FRAME, {"day": DAY})
    tables.write("t", FRAME, {"day": NEXT})
    written(tables, [FRAME.head(1)], day=DAY)
    assert_frame_equal(tables.read("t", {"day": DAY}), FRAME.head(1))
    assert_frame_equal(tables.read("t", {"day": NEXT}), FRAME)
    written(tables, HALVES, day=NEXT)
    tables.write("t", FRAME.tail(1), {"day": NEXT})
    assert_frame_equal(tables.read("t", {"day": NEXT}), FRAME.tail(1))
    assert len(tables.files("t")) == 2


def test_parts_without_rows_leave_the_empty_partition_that_a_run_leaves(tables: Tables) -> None:
    for name in ("t", "whole"):
        tables.write(name, FRAME, {"day": DAY})
    assert written(tables, [FRAME.clear()], day=DAY) == 0
    tables.write("whole", FRAME.clear(), {"day": DAY})
    assert tables.partitions("t") == tables.partitions("whole")
    assert_frame_equal(tables.read("t", {"day": DAY}), FRAME.clear())


def test_a_new_column_is_null_in_older_partitions(tables: Tables) -> None:
    tables.write("t", FRAME.drop("n"), {"day": DAY})
    written(tables, HALVES, day=NEXT)
    assert_frame_equal(tables.read("t", {"day": NEXT}).select(FRAME.columns), FRAME)
    assert tables.read("t", {"day": DAY})["n"].to_list() == [None] * 4


def test_an_older_column_that_the_rows_lack_stays(tables: Tables) -> None:
    tables.write("t", FRAME, {"day": DAY})
    written(tables, [half.drop("n") for half in HALVES], day=NEXT)
    assert_frame_equal(tables.read("t", {"day": DAY}), FRAME)
    assert tables.read("t", {"day": NEXT})["n"].to_list() == [None] * 4


def test_a_column_of_another_type_is_refused(tables: Tables) -> None:
    tables.write("t", FRAME, {"day": DAY})
    with pytest.raises(TypeError, match=r"table 't': column 'n' is .*long.*double.* came"):
        written(tables, [half.cast({"n": pl.Float64}) for half in HALVES], day=NEXT)
    assert_frame_equal(tables.read("t", {"day": DAY}), FRAME)


def test_an_error_after_the_commit_leaves_the_rows(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tables, [FRAME.clear()], day=DAY)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(DeltaTable, "update_incremental", full)
        with pytest.raises(OSError, match="No space left"):
            written(tables, HALVES, day=DAY)
    assert_frame_equal(Tables(tables.root).read("t", {"day": DAY}), FRAME)


@pytest.mark.parametrize("value", ["a b:c", "x%y/z", "ü", "007"])
def test_homes_and_partition_values_may_have_odd_characters(tmp_path: Path, value: str) -> None:
    tables = Tables(tmp_path / "it's a höme")
    tables.write("t", FRAME, {"model": value, "day": DAY})
    written(tables, HALVES, model=value, day=DAY)
    written(tables, HALVES, model=value, day=NEXT)
    assert_frame_equal(tables.read("t", {"model": value, "day": DAY}), FRAME)
    assert tables.days("t", "day", {"model": value}) == [DAY, NEXT]
    assert len({path.parent for path in tables.path("t").rglob("*.parquet")}) == 2  # delta-rs' directories and no other


def test_an_error_in_a_part_leaves_the_table_as_it_was(tables: Tables) -> None:
    written(tables, HALVES, day=DAY)
    before = sorted(tables.path("t").rglob("*"))

    def stage() -> Work[int]:
        def rows(part: int) -> Iterator[pl.DataFrame]:
            yield FRAME
            if part == 2:
                raise ValueError("part 2 is bad")

        return rows

    with pytest.raises(ValueError, match="part 2 is bad"):
        write_parts(tables, "t", {"day": DAY}, schema=FRAME.schema, run=StageRun(LocalEngine(), stage, range(4)))
    assert sorted(tables.path("t").rglob("*")) == before
    assert_frame_equal(tables.read("t", {"day": DAY}), FRAME)


def test_wide_rows_go_into_smaller_row_groups(tables: Tables) -> None:
    batches = [pl.DataFrame({"vector": [[float(n)]] * 7_000}) for n in range(6)]
    joined = pl.concat(batches)
    written(tables, [joined], day=DAY)
    file = pq.ParquetFile(tables.files("t")[0])
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert max(sizes) <= 16_384
    assert sum(sizes) == 42_000
    assert len(sizes) <= 4
    assert_frame_equal(tables.read("t", {"day": DAY}), joined)


def test_a_commit_of_parts_that_lost_its_last_lines_is_found(tables: Tables, caplog: pytest.LogCaptureFixture) -> None:
    written(tables, HALVES, day=DAY)
    written(tables, HALVES, day=NEXT)
    commit = sorted((tables.path("t") / LOG).glob("*.json"))[-1]
    commit.write_text("".join(commit.read_text().splitlines(keepends=True)[:-1]))
    found = damaged_commits(tables.path("t"))
    assert [(each.why, each.partition) for each in found] == [
        ("it holds 1 of 2 actions `add`", {"day": NEXT.isoformat()})
    ]
    with caplog.at_level(logging.WARNING):
        written(tables, HALVES, day=NEXT)  # what a re-run of the day does
    assert "is set aside" in caplog.text
    assert_frame_equal(tables.read("t", {"day": NEXT}), FRAME)
    assert_frame_equal(tables.read("t", {"day": DAY}), FRAME)


def test_a_long_stage_says_how_far_it_is(
    tables: Tables, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO):
        written(tables, HALVES, day=DAY)
        assert not caplog.messages
        monkeypatch.setattr("warehouse.part_files.TELL_SECONDS", 0.0)
        written(tables, [*HALVES, FRAME.clear()], day=DAY)
    assert caplog.messages == ["t: 1 of 3 parts done, 2 rows", "t: 2 of 3 parts done, 4 rows"]

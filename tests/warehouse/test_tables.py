from __future__ import annotations

import os
import pickle
import signal
import time
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests import processes
from warehouse.tables import TableMissing, Tables, vector_column, vectors

DAY, NEXT = date(2026, 1, 1), date(2026, 1, 2)


def test_a_partition_is_replaced_and_the_others_stay(tables: Tables) -> None:
    tables.write("t", pl.DataFrame({"x": [1, 2]}), {"day": DAY})
    tables.write("t", pl.DataFrame({"x": [3]}), {"day": NEXT})
    tables.write("t", pl.DataFrame({"x": [4]}), {"day": DAY})
    assert tables.read("t", {"day": DAY})["x"].to_list() == [4]
    assert tables.read("t", {"day": NEXT})["x"].to_list() == [3]
    assert tables.days("t", "day") == [DAY, NEXT]
    assert len(tables.files("t")) == 2
    assert tables.partition_columns("t") == ["day"]
    assert tables.names() == ["t"]


def test_an_empty_frame_empties_its_partition(tables: Tables) -> None:
    tables.write("t", pl.DataFrame({"x": [1]}), {"day": DAY})
    tables.write("t", pl.DataFrame(schema={"x": pl.Int64}), {"day": DAY})
    assert tables.read("t", {"day": DAY}).is_empty()
    assert tables.scan("t").collect_schema()["x"] == pl.Int64


def test_two_levels_of_partitions_do_not_mix(tables: Tables) -> None:
    for model in ("1", "2"):
        tables.write("s", pl.DataFrame({"x": [int(model)]}), {"model_version": model, "day": DAY})
    assert tables.read("s", {"model_version": "2", "day": DAY})["x"].to_list() == [2]
    assert tables.days("s", "day", {"model_version": "1"}) == [DAY]
    assert tables.days("s", "day", {"model_version": "3"}) == []


@pytest.mark.parametrize("value", ["a b:c", "x%y/z", "ü", "007"])
def test_homes_and_partition_values_may_have_odd_characters(tmp_path: Path, value: str) -> None:
    tables = Tables(tmp_path / "it's a höme")
    tables.write("t", pl.DataFrame({"x": [1]}), {"model_version": value, "day": DAY})
    tables.write("t", pl.DataFrame({"x": [2], "new": ["column"]}), {"model_version": value, "day": NEXT})
    assert all(Path(file).is_file() for file in tables.files("t"))
    assert tables.read("t", {"model_version": value, "day": DAY}).to_dicts() == [{"x": 1, "new": None}]
    assert tables.scan("t").select("model_version", "day").sort("day").collect().rows() == [(value, DAY), (value, NEXT)]
    assert tables.days("t", "day", {"model_version": value}) == [DAY, NEXT]


def test_a_missing_table_says_so(tables: Tables) -> None:
    for read in (lambda: tables.scan("nothing"), lambda: tables.require("nothing")):
        with pytest.raises(TableMissing, match="'nothing' does not exist yet"):
            read()
    assert tables.partitions("nothing") == []


def test_types_that_delta_lacks_are_stored_as_the_nearest(tables: Tables) -> None:
    frame = pl.DataFrame(
        {
            "vector": pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2)),
            "kind": pl.Series(["a"], dtype=pl.Categorical()),
            "count": pl.Series([7], dtype=pl.UInt32),
        }
    )
    tables.write("t", frame, {"day": DAY})
    expected = {"vector": [[1.0, 2.0]], "kind": ["a"], "count": [7]}
    assert tables.read("t", {"day": DAY}).to_dict(as_series=False) == expected


def test_vectors_round_trip() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(vectors(vector_column("v", matrix)), matrix)
    assert vectors(pl.Series("v", [], dtype=pl.List(pl.Float32))).shape == (0, 0)


WRITER = """
import sys
from datetime import date, timedelta
from pathlib import Path
import polars as pl
from warehouse.tables import Tables
tables = Tables(Path(sys.argv[1]))
for attempt in range(100_000):
    frame = pl.DataFrame({"attempt": [attempt] * 50_000, "row": range(50_000)})
    tables.write("t", frame, {"day": date(2026, 1, 1) + timedelta(days=attempt % 3)})
    print(attempt, flush=True)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_whole_partitions(tmp_path: Path) -> None:
    tables, finished = Tables(tmp_path), -1
    for delay in (0.0, 0.007, 0.013, 0.021):
        with processes.start(WRITER, str(tmp_path), environment=os.environ) as writer:
            assert writer.stdout is not None
            for _ in range(4):
                finished = int(writer.stdout.readline())
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        by_day = tables.scan("t").group_by("day").agg(pl.col("attempt").n_unique(), pl.col("row").n_unique(), pl.len())
        whole = by_day.sort("day").collect()
        assert whole["attempt"].to_list() == [1, 1, 1]
        assert whole["row"].to_list() == whole["len"].to_list() == [50_000] * 3
        newest = tables.scan("t").select(pl.col("attempt").max()).collect().item()
        assert newest >= finished, "a commit that the writer reported is lost"
        tables.write("t", pl.DataFrame({"attempt": [-1], "row": [0]}), {"day": DAY})
        assert_frame_equal(tables.read("t", {"day": DAY}), pl.DataFrame({"attempt": [-1], "row": [0]}))


def test_open_tables_are_handed_to_another_process_by_their_place(tables: Tables) -> None:
    tables.write("numbers", pl.DataFrame({"number": [1, 2]}), {"day": date(2026, 1, 1)})
    assert len(tables.scan("numbers").collect()) == 2
    handed = pickle.loads(pickle.dumps(tables))
    assert handed == tables
    assert len(handed.scan("numbers").collect()) == 2

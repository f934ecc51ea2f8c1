"""A run or the head of a cluster that dies in the middle of a stage leaves the table as it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.engine import Engine, StageRun, Work
from engine.local import LocalEngine
from tests import processes
from warehouse.part_files import write_parts
from warehouse.tables import Tables

if find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install adseq-candidates[ray]", allow_module_level=True)

from benchmarks.ray_cluster import running

pytestmark = pytest.mark.slow

PARTITION = {"day": date(2026, 1, 1)}
SCHEMA = pl.Schema({"number": pl.Int64})
BEFORE, AFTER = pl.DataFrame({"number": [-1]}), pl.DataFrame({"number": range(8)})

RUN = """
import sys
from pathlib import Path
from benchmarks.ray_cluster import ray
from engine.on_ray import RayEngine
from tests.engine.test_cluster_faults import write
write(Path(sys.argv[1]), RayEngine.connected(sys.argv[2]), float(sys.argv[3]))
"""
RUN_WITHOUT_A_HEAD = """
import sys, threading, time
from pathlib import Path
from benchmarks.ray_cluster import running
from tests.engine.test_cluster_faults import files, write
root = Path(sys.argv[1])
def kill_the_head():
    while files(root) < 3:
        time.sleep(0.1)
    cluster.kill_node()
with running(1) as (cluster, engine):
    threading.Thread(target=kill_the_head).start()
    write(root, engine, 0.5)
"""


@dataclass(frozen=True)
class Slow:
    """A stage of one number a part."""

    seconds: float

    def __call__(self) -> Work[int]:
        return self.rows

    def rows(self, part: int) -> Iterator[pl.DataFrame]:
        time.sleep(self.seconds)
        yield pl.DataFrame({"number": [part]})


def write(root: Path, engine: Engine, seconds: float = 0.0) -> None:
    write_parts(Tables(root), "t", PARTITION, schema=SCHEMA, run=StageRun(engine, Slow(seconds), range(8)))


def files(root: Path) -> int:
    return len(list(root.rglob("*.parquet")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Tables(tmp_path).write("t", BEFORE, PARTITION)
    return tmp_path


def read(root: Path) -> pl.DataFrame:
    return Tables(root).read("t", PARTITION)


def test_a_run_that_dies_leaves_the_table_as_it_was_and_the_cluster_usable(root: Path) -> None:
    with running(1) as (cluster, engine):
        with processes.start(RUN, str(root), cluster.address, "0.5", environment=os.environ) as run:
            end = time.monotonic() + 90
            while files(root) < 3 and run.poll() is None:  # two parts have ended, and others run
                assert time.monotonic() < end
                time.sleep(0.1)
            os.kill(run.pid, signal.SIGKILL)
        assert_frame_equal(read(root), BEFORE)
        write(root, engine)
    assert_frame_equal(read(root), AFTER)
    assert Tables(root).vacuum("t", timedelta(0)) > 0  # the files of the parts that no commit names
    assert files(root) == len(AFTER)


def test_a_head_that_dies_ends_the_run_and_leaves_the_table_as_it_was(root: Path) -> None:
    # Ray itself ends the process that misses the head, after a minute unless it is told otherwise.
    environment = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
    done = processes.run(RUN_WITHOUT_A_HEAD, str(root), environment=environment)
    assert done.returncode
    assert "Failed to connect to GCS" in done.stderr
    assert_frame_equal(read(root), BEFORE)
    write(root, LocalEngine())
    assert_frame_equal(read(root), AFTER)

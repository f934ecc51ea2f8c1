"""A stage gives the same rows on every engine, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from assets.common.workspace import Workspace
from assets.steps.encode import ITEM_EMBEDDINGS, encode_everyone
from assets.steps.index_shards import StoredEmbeddings, build_sharded, shards_of
from assets.steps.versions import item_versions
from engine import on_ray
from engine.engine import Engine, EngineFailed, Member, StageRun, Work
from engine.local import LocalEngine
from engine.on_ray import RayEngine, own_error
from ml.training.fit import fit, monitored
from pipelines.cli.endings import ending_of
from settings import DataSettings, EngineKind, EngineSettings, Settings
from tests import processes
from tests.assets.compare import assert_same_day
from tests.assets.world import ADSEQ, LATER, SETTINGS, copy_of, environment
from tests.flow import Ran
from tests.ml.curve import Curve
from tests.ml.toy_task import ToyTask
from tests.ml.worlds import small_settings
from tests.warehouse.ingest.arrivals import DAY, EVENTS, arrive, random_rows
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.part_files import write_parts
from warehouse.states import USER_STATES
from warehouse.tables import Tables, vector_column

if find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install adseq-candidates[ray]", allow_module_level=True)

from benchmarks.ray_cluster import Cluster, ray, running

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Doubled:
    """A stage whose parts are ranges; it writes down where each part ran."""

    directory: Path
    seconds: float = 0.0

    def __call__(self) -> Work[range]:
        return self.rows

    def rows(self, part: range) -> Iterator[pl.DataFrame]:
        for number in part:
            time.sleep(self.seconds)
            yield pl.DataFrame({"number": [number], "twice": [2 * number]})
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        (self.directory / f"{part.start}-{os.getpid()}-{time.monotonic_ns()}").write_text(node)

    def ran(self) -> list[int]:
        """The first number of each part that ran to its end, once for each time."""
        return sorted(int(path.name.split("-")[0]) for path in self.directory.iterdir())

    def nodes(self) -> set[str]:
        """The nodes on which parts ran."""
        return {path.read_text() for path in self.directory.iterdir()}


@dataclass(frozen=True)
class DiesOnce(Doubled):
    """One part kills its process the first time, after its first row."""

    def rows(self, part: range) -> Iterator[pl.DataFrame]:
        died = self.directory.parent / "died"
        for number, rows in enumerate(super().rows(part)):
            yield rows
            if number == 0 and part.start == 20 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)


PARTS = [range(begin, begin + 10) for begin in range(0, 80, 10)]
EXPECTED = pl.DataFrame({"number": range(80), "twice": range(0, 160, 2)})


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[Cluster, RayEngine]]:
    with running(2) as found:
        yield found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    directory = tmp_path / "written"
    directory.mkdir()
    return directory


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return LocalEngine() if request.param == "local" else request.getfixturevalue("two_nodes")[1]


def test_rows_come_in_the_order_of_the_parts(engine: Engine, written: Path) -> None:
    stage = Doubled(written, seconds=0.05)
    assert_frame_equal(pl.concat(engine.run(stage, PARTS)), EXPECTED)
    assert stage.ran() == [part.start for part in PARTS]
    assert len(stage.nodes()) == (1 if isinstance(engine, LocalEngine) else 2)


def test_no_part_gives_no_row(engine: Engine, written: Path) -> None:
    assert list(engine.run(Doubled(written), [])) == []


def test_a_stage_ends_with_the_error_of_its_part(engine: Engine, written: Path) -> None:
    def stage() -> Work[int]:
        def rows(part: int) -> Iterator[pl.DataFrame]:
            yield pl.DataFrame({"whole": [12 // part]})

        return rows

    rows = engine.run(stage, [1, 0, 2])
    assert next(rows).item() == 12
    with pytest.raises(ZeroDivisionError, match=r"^integer division or modulo by zero$"):
        next(rows)


def test_what_nobody_asks_for_does_not_run_on(
    two_nodes: tuple[Cluster, RayEngine], written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "AHEAD", 4)  # all parts are on the cluster
    stage = Doubled(written, seconds=0.03)
    rows = two_nodes[1].run(stage, PARTS)
    next(rows)
    rows.close()
    before = stage.ran()
    time.sleep(2)
    assert len(stage.ran()) <= len(before) + 2 < len(PARTS)  # what ran was cancelled, or had come to its end


def test_a_part_whose_process_dies_runs_again(two_nodes: tuple[Cluster, RayEngine], written: Path) -> None:
    stage = DiesOnce(written)
    assert_frame_equal(pl.concat(two_nodes[1].run(stage, PARTS)), EXPECTED)
    assert (written.parent / "died").exists()


def test_a_part_that_always_dies_ends_the_stage(two_nodes: tuple[Cluster, RayEngine]) -> None:
    def stage() -> Work[int]:
        return lambda part: os.kill(os.getpid(), signal.SIGKILL) if part else iter([])  # type: ignore[return-value]

    with pytest.raises(
        EngineFailed, match=r"^Part 2 of 2 .*died 6 times.*Nothing was committed.*ADSEQ_DATA__MEMORY_GIB"
    ):
        list(two_nodes[1].run(stage, [0, 1]))


def test_a_node_that_dies_takes_no_row_with_it_and_a_late_one_is_used(
    two_nodes: tuple[Cluster, RayEngine], written: Path
) -> None:
    (cluster, engine), stage = two_nodes, Doubled(written, seconds=0.1)
    rows = engine.run(stage, PARTS)
    found = [next(rows)]
    cluster.kill_node()
    found += rows
    assert_frame_equal(pl.concat(found), EXPECTED)
    cluster.wait_for(1)
    before = stage.nodes()
    rows = engine.run(stage, PARTS)
    found = [next(rows)]
    cluster.add_node()
    cluster.wait_for(2)
    found += rows
    found += engine.run(stage, PARTS)
    assert_frame_equal(pl.concat(found), pl.concat([EXPECTED, EXPECTED]))
    assert stage.nodes() - before


PARTITION = {"day": LATER}
BEFORE, AFTER = pl.DataFrame({"number": [-1]}), pl.DataFrame({"number": range(8)})
RUN = """
import sys
from pathlib import Path
from benchmarks.ray_cluster import ray
from engine.on_ray import RayEngine
from tests.engine.test_engines import write
write(Path(sys.argv[1]), RayEngine.connected(sys.argv[2]), 0.5)
"""


def write(root: Path, engine: Engine, seconds: float) -> None:
    """Write a table of one number a part."""

    def stage() -> Work[int]:
        def rows(part: int) -> Iterator[pl.DataFrame]:
            time.sleep(seconds)
            yield pl.DataFrame({"number": [part]})

        return rows

    run = StageRun(engine, stage, range(8))
    write_parts(Tables(root), "t", PARTITION, schema=BEFORE.schema, run=run)


def test_a_run_that_dies_leaves_the_table_as_it_was_and_the_cluster_usable(
    two_nodes: tuple[Cluster, RayEngine], tmp_path: Path
) -> None:
    (cluster, engine), tables = two_nodes, Tables(tmp_path)
    tables.write("t", BEFORE, PARTITION)

    def files() -> int:
        return len(list(tmp_path.rglob("*.parquet")))

    with processes.start(RUN, str(tmp_path), cluster.address, environment=os.environ) as run:
        end = time.monotonic() + 90
        while files() < 3 and run.poll() is None:  # two parts have ended, and others run
            assert time.monotonic() < end
            time.sleep(0.1)
        os.kill(run.pid, signal.SIGKILL)
    assert_frame_equal(tables.read("t", PARTITION), BEFORE)
    write(tmp_path, engine, 0.0)
    assert_frame_equal(Tables(tmp_path).read("t", PARTITION), AFTER)
    assert Tables(tmp_path).vacuum("t", timedelta(0)) > 0  # the files of the parts that no commit names
    assert files() == len(AFTER)


def test_a_day_on_a_cluster_has_the_rows_of_a_day_in_one_process(
    two_nodes: tuple[Cluster, RayEngine], ran: Ran, day_later: Ran, tmp_path: Path
) -> None:
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    engine = {"ADSEQ_ENGINE__KIND": "ray", "ADSEQ_ENGINE__ADDRESS": two_nodes[0].address}
    done = processes.run(ADSEQ, "run", environment={**environment(home), **engine, "ADSEQ_DATA__BUCKET_EVENTS": "20"})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert any(b"ray_nodes" in path.read_bytes() for path in home.dagster.rglob("*.db"))
    tables = Tables(home.tables)
    assert tables.names() == day_later.tables.names()
    assert_same_day(day_later.tables, tables, LATER, ["item-1"])


def test_an_arrival_on_a_cluster_has_the_rows_that_it_has_in_one_process(
    two_nodes: tuple[Cluster, RayEngine], tmp_path: Path
) -> None:
    landing, random = Landing(tmp_path / "landing"), np.random.default_rng(0)
    landing.write_manifest(Manifest(synthetic=True))  # the same keys in both
    for part in range(5):
        arrive(landing, random_rows(random, 60), part=f"part-{part}")
    settings, found = DataSettings(maximum_quarantine_share=1.0, part_mib=0), []
    for name, engine, parts in (("here", LocalEngine(), 1), ("there", two_nodes[1], 5)):
        tables = Tables(tmp_path / name)
        assert ingest(landing, tables, EVENTS, day=DAY, settings=settings, engine=engine).parts == parts
        found.append([tables.scan(table).collect() for table in ("events", "identities", "quarantine_events")])
    for here, there in zip(*found, strict=True):
        assert_frame_equal(here, there, check_exact=True, check_row_order="event_id" in here.columns)
    assert len(found[0][0]) > 100


def test_a_full_inference_on_a_cluster_is_equal_to_the_bit(
    two_nodes: tuple[Cluster, RayEngine], ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)  # as the cluster's processes have: two threads round otherwise
    home = copy_of(ran.home, tmp_path / "home")
    for name, value in {**SETTINGS, "ADSEQ_DATA__BUCKET_EVENTS": "500"}.items():
        monkeypatch.setenv(name, value)
    found = []
    for engine in (EngineSettings(), EngineSettings(kind=EngineKind.ray, address=two_nodes[0].address)):
        workspace = Workspace(Settings(home=home.root, engine=engine))
        assert isinstance(workspace.engine, LocalEngine if engine.kind is EngineKind.local else RayEngine)
        [version] = item_versions(workspace.tables, home).all()
        assert encode_everyone(workspace, version) > 100
        found.append(workspace.tables.read(USER_STATES, {"model_version": version.name, "day": version.trained_day}))
    assert_frame_equal(*(frame.sort("user_id") for frame in found), check_exact=True)


def test_an_index_whose_shards_a_cluster_fills_is_equal_to_the_bit(
    two_nodes: tuple[Cluster, RayEngine], tmp_path: Path
) -> None:
    tables = Tables(tmp_path / "tables")
    matrix = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    ids = pl.Series("item_id", [f"item {row:05}" for row in range(len(matrix))])
    frame = pl.DataFrame([ids, vector_column("embedding", matrix)])
    tables.write(ITEM_EMBEDDINGS, frame, {"model_version": "1", "day": LATER})
    stored = StoredEmbeddings(tables.newest(ITEM_EMBEDDINGS), "1", LATER)
    shards, directory = shards_of(stored.item_ids(), 4096), tmp_path / "index"
    local, cluster = (
        faiss.serialize_index(build_sharded(engine, stored, shards, directory=directory).vectors).tobytes()
        for engine in (LocalEngine(), two_nodes[1])
    )
    assert local == cluster
    assert not directory.exists()


def test_a_training_of_two_processes_is_equal_to_the_bit_on_two_nodes_and_here(
    two_nodes: tuple[Cluster, RayEngine], tmp_path: Path
) -> None:
    usual = Path.home() / "ray_results"  # where Ray Train writes by default
    existed = usual.exists()
    settings = small_settings(training={"learning_rate": 0.3, "processes": 2})
    task, curves = ToyTask(settings, monitor=monitored(1)), {"there": Curve(), "here": Curve()}
    there = fit(task, 20, tmp_path / "there", logger=curves["there"], engine=two_nodes[1])
    here = fit(task, 20, tmp_path / "here", logger=curves["here"])
    for name, value in here.network.state_dict().items():
        assert torch.equal(there.network.state_dict()[name], value), name
    assert there.validation == here.validation > 0.9
    assert curves["there"].losses == curves["here"].losses
    assert len(curves["there"].losses) == 20
    assert usual.exists() == existed
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["last.ckpt"]


def raises_or_waits(member: Member) -> None:
    if member.rank == 1:
        raise LookupError("nothing to learn here")
    torch.distributed.barrier()


def test_a_training_ends_with_the_error_of_its_process(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, own = tmp_path / "temporary files", tmp_path / "a training"
    for directory in (temporary, own):
        directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(LookupError, match=r"^nothing to learn here$"):
        engine.train(raises_or_waits, 2, own)
    assert not [*temporary.iterdir(), *own.iterdir()]


def dies_or_waits(member: Member) -> None:
    if member.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


def test_a_training_whose_process_dies_says_what_to_do(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"goes on after the newest epoch.*PROCESSES needs less, and begins") as died:
        engine.train(dies_or_waits, 2, tmp_path)
    assert ending_of(died.value) == (2, str(died.value))


CLOSED = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:9")
RESET = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Read error: Connection reset by peer")
NCCL = torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0")
DEAD, OWN = ray.exceptions.RayActorError(), RuntimeError("the learning rate is no number")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([CLOSED, OWN], OWN),
        ([OWN, RESET], OWN),
        ([RESET], None),
        ([NCCL, CLOSED], None),
        ([OWN, DEAD], None),
        ([], None),
    ],
)
def test_what_follows_from_a_dead_worker_is_no_error_of_the_training(
    failures: list[Exception], expected: Exception | None
) -> None:
    assert own_error(failures) is expected


def test_more_processes_than_cores_are_refused(two_nodes: tuple[Cluster, RayEngine], tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"30 processes cannot train on [12] cores.*ADSEQ_TRAINING__PROCESSES"):
        two_nodes[1].train(raises_or_waits, 30, tmp_path)


def test_more_processes_than_cores_end_the_run_before_a_training(
    two_nodes: tuple[Cluster, RayEngine], ran: Ran, tmp_path: Path
) -> None:
    home = copy_of(ran.home, tmp_path / "home")
    engine = {"ADSEQ_ENGINE__KIND": "ray", "ADSEQ_ENGINE__ADDRESS": two_nodes[0].address}
    asked = {**environment(home), **engine, "ADSEQ_TRAINING__PROCESSES": "30"}
    done = processes.run(ADSEQ, "run", "--retrain", environment=asked)
    assert done.returncode == 2
    assert "30 processes cannot train on" in done.stderr
    assert "Traceback" not in done.stderr
    assert "item_model" not in done.stdout


def test_an_address_without_a_cluster_ends_the_run_before_a_day_begins(ran: Ran, tmp_path: Path) -> None:
    home = copy_of(ran.home, tmp_path / "home", with_day=LATER)
    engine = {"ADSEQ_ENGINE__KIND": "ray", "ADSEQ_ENGINE__ADDRESS": "127.0.0.1:9"}
    done = processes.run(ADSEQ, "run", environment={**environment(home), **engine})
    assert done.returncode == 2
    assert "The Ray cluster at 127.0.0.1:9 cannot be used" in done.stderr
    assert "make cluster" in done.stderr
    assert "Traceback" not in done.stderr
    assert LATER not in Tables(home.tables).days("events", "arrival_date")

"""What every test shares: a home of its own, never the developer's, and no slow-machine flakiness."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from tests.fast import Guard, mark_slow
from tests.flow import day_later, landing, ran, run_flow, shared, shared_directory  # noqa: F401 - fixtures
from tests.processes import start_server

# Databases wait for their disk at each of thousands of commits; no test needs what they write to outlive the machine.
MEMORY_DISK, WANTED_BYTES = Path("/dev/shm"), 4 << 30
if "TMPDIR" not in os.environ and MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free >= WANTED_BYTES:
    os.environ["TMPDIR"] = str(MEMORY_DISK)
    tempfile.tempdir = None  # is found anew

# Before any test module imports assets.common.partitions, which reads the home when it is imported.
_home = tempfile.TemporaryDirectory(prefix="adseq-tests-")  # removed when the interpreter ends
os.environ["ADSEQ_HOME"] = _home.name
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["COLUMNS"] = "200"  # whoever prints a table first, it is as wide
KEPT = ("ADSEQ_HOME", "ADSEQ_SHARED")  # the second is where the independent scorer lies
for name in [name for name in os.environ if name.startswith("ADSEQ_") and name not in KEPT]:
    del os.environ[name]

# The longest files, the longest first, so that workers end together: ``pytest --durations=0`` says which they are.
LONGEST = (
    "pipelines/test_wheel.py",
    "assets/test_advertisers.py",
    "assets/test_faults.py",
    "assets/test_disturbed.py",
    "serving/test_faults.py",
    "assets/steps/test_promote.py",
    "assets/test_incremental.py",
    "serving/test_events.py",
    "assets/test_publication.py",
    "pipelines/cli/test_forget.py",
    "pipelines/cli/test_interruption.py",
)

settings.register_profile("adseq", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("adseq")

SHARED = Path(os.environ.get("ADSEQ_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only tests that start no process and train nothing")


def pytest_configure(config: pytest.Config) -> None:
    """Before xdist starts its workers, which share the server."""
    if config.option.fast:
        config.pluginmanager.register(Guard())
    else:
        start_server()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow ones out of a fast run. The flow takes a minute: what reads it comes last, the longest first."""
    mark_slow(items)
    if config.option.fast:
        left_out = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    readers = {item.path for item in items if _reads_flow(item)}
    items.sort(key=lambda item: (item.path in readers, _rank(item.path)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """One of several workers begins the flow while all run what needs none."""
    worker = getattr(session.config, "workerinput", {"workerid": None})["workerid"]
    if worker == "gw0" and any(map(_reads_flow, session.items)):
        directory = shared_directory(session.config._tmp_path_factory, worker)  # type: ignore[attr-defined]
        threading.Thread(target=run_flow, args=(directory,), daemon=True).start()


def _reads_flow(item: pytest.Item) -> bool:
    return "ran" in getattr(item, "fixturenames", ())


def _rank(path: Path) -> int:
    """The place of a file among the longest, from the first; the others come after them."""
    name = path.relative_to(Path(__file__).parent).as_posix()
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


@pytest.fixture(scope="session")
def scorer() -> ModuleType:
    """The independent scorer, which is no part of the project."""
    path = SHARED / "scoring" / "score.py"
    if not path.exists():
        pytest.skip(f"the independent scorer is not at {path}; set ADSEQ_SHARED to the directory that holds scoring/")
    specification = importlib.util.spec_from_file_location("independent_scorer", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module

"""What every test shares: a home of its own, never the developer's, and no slow-machine flakiness."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from tests.flow import landing, ran, shared  # noqa: F401 - fixtures
from tests.processes import start_server

# Before any test module imports assets.common.partitions, which reads the home when it is imported.
_home = tempfile.TemporaryDirectory(prefix="adseq-tests-")  # removed when the interpreter ends
os.environ["ADSEQ_HOME"] = _home.name
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["COLUMNS"] = "200"  # whoever prints a table first, it is as wide
KEPT = ("ADSEQ_HOME", "ADSEQ_SHARED")  # the second is where the independent scorer lies
for name in [name for name in os.environ if name.startswith("ADSEQ_") and name not in KEPT]:
    del os.environ[name]

settings.register_profile("adseq", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("adseq")

SHARED = Path(os.environ.get("ADSEQ_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_configure() -> None:
    """Before xdist starts its workers, which share the server."""
    start_server()


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

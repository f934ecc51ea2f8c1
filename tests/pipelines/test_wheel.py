"""The wheel, installed where there is no checkout, works."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.assets.world import SETTINGS, WORLD
from tests.processes import PROJECT
from warehouse.landing import Landing
from warehouse.world import write_world

pytestmark = pytest.mark.slow


def run(*command: object, environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel, and with the dependencies of this one."""
    root = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", root]
    source = root / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (PROJECT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((PROJECT / name).read_bytes())
    run(*pip, "wheel", *build, source, environment=dict(os.environ), directory=root)
    venv.create(root / "venv", with_pip=False)
    (site,) = (root / "venv").glob("lib/python*/site-packages")
    (wheel,) = root.glob("*.whl")
    run(
        *pip,
        "--python",
        root / "venv",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        environment=dict(os.environ),
        directory=root,
    )
    # As a plain path: the hooks that lead from this environment to the checkout are not run.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return root / "venv" / "bin"


def test_each_package_of_the_wheel_says_that_it_is_typed(installed: Path) -> None:
    (site,) = installed.parent.glob("lib/python*/site-packages")
    packages = {path.parent.name for path in site.glob("*/__init__.py")}
    assert packages == {"pipelines", "assets", "serving", "ml", "warehouse"}
    assert {path.parent.name for path in site.glob("*/py.typed")} == packages


def test_a_day_of_the_tiny_world_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADSEQ_", "PYTHON", "DAGSTER_"))}
    environment = {**kept, **SETTINGS, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    origin = "import pipelines; print(pipelines.__file__)"
    where = run(installed / "python", "-c", origin, environment=environment, directory=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    write_world(Landing(tmp_path / "landing"), WORLD, 1)
    adseq = installed / "adseq"
    assert "adseq 0." in run(adseq, "--version", environment=environment, directory=tmp_path)
    assert "Ready" in run(adseq, "validate", "landing", environment=environment, directory=tmp_path)
    done = run(adseq, "run", "--landing", "landing", "--home", "home", environment=environment, directory=tmp_path)
    assert "✓ online_states" in done
    assert (tmp_path / "home" / "dagster" / "dagster.yaml").is_file()
    proxy = "from pathlib import Path; from pipelines.cli.proxy import configuration; "
    proxy += "from settings import ServingSettings; "
    proxy += "assert '8081' in configuration(8080, 8081, Path(), ServingSettings())"
    run(installed / "python", "-c", proxy, environment=environment, directory=tmp_path)
    page = "from serving.app import create_app; from settings import Settings; create_app(Settings(home='home'))"
    run(installed / "python", "-c", page, environment=environment, directory=tmp_path)

"""The wheel, installed where there is no checkout, works: on a shop of three items, which is a shop.

One flow shows both: what a wheel holds, and that such a log is trained on, published, measured and exported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from serving.answer import answer
from serving.contracts import CandidateRequest
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.propose import Proposers
from serving.publication import Served
from settings import Settings
from tests.assets.world import adseq
from tests.pipelines.small_shop import SHOP_SETTINGS, write_shop
from tests.processes import PROJECT
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.online import open_store
from warehouse.tables import Tables

pytestmark = pytest.mark.slow

SERVED = """
from pathlib import Path
import pipelines
from pipelines.cli.proxy import configuration
from serving.app import create_app
from settings import ServingSettings, Settings
assert "8081" in configuration(8080, 8081, Path(), limits=ServingSettings())
create_app(Settings(home="home"))
print(pipelines.__file__)
"""
"""What serves an installed home: the proxy's configuration and the application."""


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
    assert packages == {"pipelines", "assets", "serving", "ml", "warehouse", "engine"}
    assert {path.parent.name for path in site.glob("*/py.typed")} == packages


@dataclass(frozen=True)
class RanFromWheel:
    """What the installed commands printed, and the home that they filled."""

    home: Home
    version: str
    validated: str
    printed: str


@pytest.fixture(scope="module")
def shop(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> RanFromWheel:
    """The flow on a shop of three items, by the installed commands."""
    root = tmp_path_factory.mktemp("shop")
    write_shop(Landing(root / "landing"))

    def adseq(*arguments: str) -> str:
        return run(installed / "adseq", *arguments, environment=wheels_environment(), directory=root)

    version, validated = adseq("--version"), adseq("validate", "landing")
    printed = adseq("run", "--landing", "landing", "--home", "home")
    return RanFromWheel(Home(root / "home"), version, validated, printed)


def wheels_environment() -> dict[str, str]:
    """Nothing that leads to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADSEQ_", "PYTHON", "DAGSTER_"))}
    return {**kept, **SHOP_SETTINGS, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def test_a_shop_runs_from_the_wheel(installed: Path, shop: RanFromWheel) -> None:
    assert "adseq 0." in shop.version
    assert "Ready" in shop.validated
    assert "✓ online_states" in shop.printed
    assert (shop.home.dagster / "dagster.yaml").is_file()
    served = run(installed / "python", "-c", SERVED, environment=wheels_environment(), directory=shop.home.root.parent)
    assert Path(served.strip()).is_relative_to(installed.parent)


def test_a_catalogue_of_three_items_is_trained_published_measured_and_exported(
    shop: RanFromWheel, tmp_path: Path
) -> None:
    metrics = Tables(shop.home.tables).scan("model_metrics").collect()
    assert metrics.filter(report="recall", metric="recall@1", segment="all")["low"].is_not_null().any()
    assert not metrics.filter(pl.col("metric").str.contains("@10|@50|@100"), pl.col("report") == "recall").height

    store = open_store("lmdb", shop.home)
    try:
        served = Served.newest(shop.home.root, store)
        for user in ("u0", "nobody"):
            request = CandidateRequest(user_id=user, k=10, explain=True)
            found = answer(
                served, store, request, proposers=Proposers.of(Settings().serving), watch=Stopwatch(ServiceMetrics())
            ).response.candidates
            assert {each.item_id for each in found} == {"i0", "i2"}
    finally:
        store.close()
    exported = tmp_path / "candidates.parquet"
    assert adseq(shop.home, "export", "candidates", "--out", str(exported), "-k", "10").returncode == 0
    assert set(pl.read_parquet(exported).filter(kind="item")["item_id"]) == {"i0", "i2"}

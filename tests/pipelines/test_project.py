"""The habits of the project that no tool checks, and what Dagster loads."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipelines.instance import NOT_COPIED, use_home
from tests.syntax_trees import parsed
from warehouse.home import Home

PROJECT = Path(__file__).resolve().parents[2]

LOAD = """
import json, sys
from pipelines.definitions import defs
heavy = sorted({"torch", "lightning", "mlflow", "sklearn", "matplotlib", "faiss"} & set(sys.modules))
layers = {name: defs.resolve_job_def(name).asset_layer for name in ("bootstrap", "daily", "retrain")}
sizes = {name: len(layer.executable_asset_keys) for name, layer in layers.items()}
print(json.dumps({"heavy": heavy, "jobs": sizes}))
"""


@pytest.mark.slow
def test_loading_the_definitions_imports_nothing_heavy(tmp_path: Path) -> None:
    environment = {**os.environ, "ADSEQ_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded = json.loads(result.stdout.splitlines()[-1])
    assert loaded["heavy"] == []
    assert loaded["jobs"] == {"bootstrap": 13, "daily": 27, "retrain": 12}


def test_settings_is_a_leaf() -> None:
    tree = parsed(PROJECT / "settings.py")
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"pipelines", "assets", "ml", "warehouse", "engine"}


def test_a_home_gets_the_projects_dagster_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADSEQ_HOME", "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "put back afterwards")
    home = Home(tmp_path / "home")
    use_home(home)
    installed = home.dagster / "dagster.yaml"
    copied, _, storage = (PROJECT / "dagster.yaml").read_bytes().partition(NOT_COPIED)
    assert installed.read_bytes() == copied
    assert b"HomeStorage" in storage
    installed.write_text("telemetry: {enabled: true}\n")
    use_home(home)
    with dg.DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 2
        assert instance.run_monitoring_enabled
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 1
        assert Path(instance.storage_directory()).is_relative_to(home.root)

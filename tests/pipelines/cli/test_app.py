"""The ``adseq`` command: quick to answer, readable when refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests import processes
from tests.assets.world import ADSEQ
from warehouse.home import Home
from warehouse.landing import Landing

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Commands change the environment for the definitions they load: put it back afterwards."""
    for name in ("ADSEQ_HOME", "DAGSTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, "placeholder"))
    monkeypatch.delenv("ADSEQ_HOME")
    return CliRunner()


def test_help_names_every_command(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("demo", "run", "import", "evaluate", "tune", "ui", "summary"):
        assert re.search(rf"\b{command}\b", result.output)


def test_help_describes_arguments_and_the_defaults_that_a_home_decides(runner: CliRunner) -> None:
    assert "A user_id." in runner.invoke(app, ["recommend", "--help"]).output
    assert "the one that the home reads" in runner.invoke(app, ["run", "--help"]).output


@pytest.mark.slow
def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys; from pipelines.cli.app import app; "
        "heavy = {'dagster', 'polars', 'torch', 'mlflow', 'lightning', 'pydantic'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)


@pytest.mark.slow
def test_a_broken_manifest_is_one_message_and_exit_code_2(runner: CliRunner, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "manifest.toml").write_text("prediction_window_days = 0\n")
    environment = {**os.environ, "ADSEQ_HOME": str(tmp_path / "home")}
    result = processes.run(ADSEQ, "run", "--landing", str(landing), environment=environment)
    assert result.returncode == 2
    assert "manifest.toml: field 'prediction_window_days'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_broken_setting_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    environment = {**os.environ, "ADSEQ_HOME": str(tmp_path), "ADSEQ_TRAINING__BATCH_SIZE": "1"}
    result = processes.run(ADSEQ, "run", environment=environment)
    assert result.returncode == 2
    assert "ADSEQ_TRAINING__BATCH_SIZE: Input should be greater than or equal to 2" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_range_of_days_is_refused(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["run", "--home", str(tmp_path), "--days", "last week"])
    assert result.exit_code == 2
    assert "--days 'last week'" in result.output


def test_a_home_holds_one_log(runner: CliRunner, tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    (home.tables / "events").mkdir()
    (tmp_path / "other").mkdir()
    result = runner.invoke(app, ["run", "--home", str(home.root), "--landing", str(tmp_path / "other")])
    assert result.exit_code == 2
    assert "another --home" in result.output
    assert Landing(home.landing).root == home.root / "landing"


def test_summary_of_an_empty_home_says_what_to_run(runner: CliRunner, tmp_path: Path) -> None:
    Home(tmp_path).create()
    result = runner.invoke(app, ["summary", "--home", str(tmp_path)])
    assert result.exit_code == 0
    assert "No report has run yet" in result.output

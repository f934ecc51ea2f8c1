"""The container files name what there is: packages, commands, settings, metrics."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from pipelines.cli.app import app
from serving.prometheus import ServiceMetrics
from settings import variables

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_the_image_is_built_from_all_packages_and_from_files_that_there_are() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    copied = [source for source in copied if not source.startswith(("--from", "/opt"))]
    assert all((PROJECT / source).exists() for source in copied)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {pattern.rstrip("*") for pattern in project["packages"]["find"]["include"]} <= set(copied)
    assert {f"{module}.py" for module in project["py-modules"]} <= set(copied)
    assert "USER adseq" in lines
    assert lines.index("USER adseq") > max(number for number, line in enumerate(lines) if line.startswith("FROM"))


def test_each_command_of_adseq_is_one_that_there_is() -> None:
    [of_image] = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    own = [each["command"] for each in services().values() if "build" in each and "entrypoint" not in each]
    assert len(own) >= 3
    for command in [json.loads(of_image), *own]:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, f"{shlex.join(command)}: {result.output}"


def test_each_variable_is_a_setting_or_the_token() -> None:
    named = set(re.findall(r"\bADSEQ_\w+", (DEPLOY / "compose.yaml").read_text()))
    named |= set(re.findall(r"\bADSEQ_\w+", (DEPLOY / "Dockerfile").read_text()))
    assert named - {"ADSEQ_TOKEN"} <= set(variables())


def test_only_the_proxy_is_reached_by_other_machines() -> None:
    published = [port for each in services().values() for port in each.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["8080:8080"]


def test_the_dashboard_shows_each_metric_of_the_service_and_no_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {re.sub("_(bucket|count|total)$", "", name) for each in asked for name in re.findall(r"adseq_\w+", each)}
    assert shown == {family.name for family in ServiceMetrics().registry.collect()}

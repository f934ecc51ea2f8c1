"""The hooks and the workflow run what `make` and `.ci/run` run, at the versions of pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]


def test_hooks_run_every_linter_of_make_lint_from_its_environment() -> None:
    configuration = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    (repository,) = configuration["repos"]
    assert repository["repo"] == "local"
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert all(program.startswith(".venv-lint/bin/") for program in programs)
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    linters = {line.split()[0].removeprefix("$(LINT)/bin/") for line in recipe.splitlines()}
    assert linters == {"ruff", "lint-imports"}
    assert linters <= {Path(program).name for program in programs}


def test_the_workflow_runs_what_ci_runs_with_no_right_to_write() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert (PROJECT / ".ci" / "run").stat().st_mode & 0o111


def test_ci_runs_every_part_of_make_check() -> None:
    (parts,) = re.findall(r"^check: ([a-z ]+?) ##", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(
        r"^(?:exec )?make --no-print-directory (\w+)$", (PROJECT / ".ci/run").read_text(), re.MULTILINE
    ) == (parts.split())

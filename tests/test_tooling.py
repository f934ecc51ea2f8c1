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

"""The examples in docstrings are run: what a docstring shows is what the function gives.

pytest's ``--doctest-modules`` imports every module to look for examples. This test imports only modules that hold one.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PLACES = ("settings.py", "engine", "warehouse", "ml", "serving", "assets", "pipelines")
FILES = [
    path
    for place in PLACES
    for path in ([PROJECT / place] if place.endswith(".py") else (PROJECT / place).rglob("*.py"))
]
MODULES = sorted(
    ".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in FILES if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_show_what_the_functions_give(name: str) -> None:
    ran = doctest.testmod(importlib.import_module(name))
    assert ran.attempted > 0
    assert ran.failed == 0, f"{ran.failed} of {ran.attempted} examples fail; their differences are printed above"

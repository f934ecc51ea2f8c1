"""Fixtures of the warehouse tests: an empty landing zone and empty tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from warehouse.landing import Landing
from warehouse.tables import Tables


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables")

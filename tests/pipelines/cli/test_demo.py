"""The demo's world is written once, whole or not at all, and never over somebody's log."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from pipelines.cli import demo
from pipelines.cli.errors import RunRefused
from warehouse.contracts import LandingTable
from warehouse.landing import Landing
from warehouse.world import WorldSummary

CONSOLE = Console(file=io.StringIO(), width=200)
DAY = date(2026, 1, 1)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where worlds were written, by a stand-in for the generator (which has tests of its own)."""
    calls: list[Path] = []

    def write(landing: Landing, _settings: Any, days: int) -> WorldSummary:
        calls.append(landing.root)
        landing.write(LandingTable.events, DAY, pl.DataFrame({"event_id": ["a"]}))
        if len(calls) == 1:
            raise KeyboardInterrupt
        (landing.root / "world.json").write_text("{}")
        return WorldSummary(1, 2, 3, 4, 5, 6, (DAY,) * days)

    monkeypatch.setattr(demo, "write_world", write)
    return calls


def test_an_interrupted_world_is_no_world_and_the_next_try_writes_it_once(written: list[Path], tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    with pytest.raises(KeyboardInterrupt):
        demo.ensure_world(landing, 3, CONSOLE)
    assert landing.dates() == []
    demo.ensure_world(landing, 3, CONSOLE)
    assert landing.dates() == [DAY]
    demo.ensure_world(landing, 3, CONSOLE)
    assert len(written) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["landing"]


def test_a_log_of_ones_own_is_left_alone(written: list[Path], tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    landing.write(LandingTable.events, None, pl.DataFrame({"event_id": ["mine"]}))
    with pytest.raises(RunRefused, match="a log of yours"):
        demo.ensure_world(landing, 3, CONSOLE)
    assert written == []

"""What of a report goes into the closing table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps import item_reports as reporting
from assets.steps.versions import item_versions
from settings import Settings
from warehouse.home import Home


@dataclass
class Champion:
    """In the place of MLflow."""

    name: str

    def champion(self) -> str:
        return self.name


def test_the_closing_table_stays_the_champions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(Settings(home=Home(tmp_path).create().root))
    champion = Champion("item-1")
    monkeypatch.setattr(Workspace, "tracking", champion)

    def report(value: float) -> list[float]:
        reporting.write_champion_metrics(workspace, "recall", pl.DataFrame({"model": ["contextual"], "value": [value]}))
        return workspace.tables.read("model_metrics", {"report": "recall"})["value"].to_list()

    versions = item_versions(workspace.tables, workspace.home)
    versions.add("item-1", date(2026, 1, 1), "run")
    assert report(0.5) == [0.5]
    versions.add("item-2", date(2026, 1, 2), "run")  # trained, and refused by the gate
    assert report(0.25) == [0.5]
    champion.name = "item-2"
    assert report(0.75) == [0.75]

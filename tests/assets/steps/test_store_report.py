"""What of a report goes into the closing table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

import ml.versions.fingerprint
from assets.common.workspace import Workspace
from assets.steps.store_report import Report, store_report
from assets.steps.versions import advertiser_versions, item_versions
from ml.evaluation.report_rows import Protocol, rows_of
from settings import Settings
from warehouse.home import Home


@dataclass
class NoTracking:
    """In the place of MLflow."""

    name: str
    runs: list[str] = field(default_factory=list)
    experiments: set[str] = field(default_factory=set)

    def champion(self) -> str:
        return self.name

    @contextmanager
    def run(self, experiment: str, name: str, _tags: dict[str, str], nested: bool = False) -> Iterator[Any]:
        self.runs.append(name)
        self.experiments.add(experiment)
        yield SimpleNamespace()

    def url(self, _run: Any) -> str:
        return ""


@pytest.fixture
def tracking(monkeypatch: pytest.MonkeyPatch) -> NoTracking:
    for name in ("log_params", "set_tag", "log_metrics", "log_artifacts", "log_text"):
        monkeypatch.setattr(mlflow, name, lambda *_, **__: None)
    monkeypatch.setattr(ml.versions.fingerprint, "dataset_hash", lambda _: "")
    tracking = NoTracking("item-1")
    monkeypatch.setattr(Workspace, "tracking", tracking)
    return tracking


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Settings(home=Home(tmp_path).create().root))


def kept(workspace: Workspace, version: Any, value: float) -> list[float]:
    """What the table holds after a report."""
    report = Report("recall", Protocol.item, rows_of("contextual", {"recall@10": value}), {})
    store_report(workspace, version, None, report=report, tags={})  # type: ignore[arg-type]
    return workspace.tables.read("model_metrics", {"report": "recall"})["value"].to_list()


def test_the_closing_table_stays_the_champions(workspace: Workspace, tracking: NoTracking) -> None:
    versions = item_versions(workspace.tables, workspace.home)
    versions.add("item-1", date(2026, 1, 1), "run")
    assert kept(workspace, versions.all()[-1], 0.5) == [0.5]
    versions.add("item-2", date(2026, 1, 2), "run")  # trained, and refused by the gate
    assert kept(workspace, versions.all()[-1], 0.25) == [0.5]
    tracking.name = "item-2"
    assert kept(workspace, versions.all()[-1], 0.75) == [0.75]
    assert tracking.runs == [
        "recall_report 2026-01-01",
        "item contextual",
        *2 * ["recall_report 2026-01-02", "item contextual"],
    ]


def test_no_gate_keeps_the_figures_of_an_advertiser_model_back(workspace: Workspace, tracking: NoTracking) -> None:
    versions = advertiser_versions(workspace.tables, workspace.home)
    versions.add("advertiser-1", date(2026, 1, 1), "run")
    assert kept(workspace, versions.all()[-1], 0.5) == [0.5]


def test_the_arms_of_the_market_lie_in_an_experiment_of_their_own(workspace: Workspace, tracking: NoTracking) -> None:
    versions = item_versions(workspace.tables, workspace.home)
    versions.add("item-1", date(2026, 1, 1), "run")
    kept(workspace, versions.all()[-1], 0.5)
    assert tracking.experiments == {"adseq reports"}
    tracking.runs.clear()
    tracking.experiments.clear()
    rows = [*rows_of("none", {"roas": 9.0}), *rows_of("contextual", {"roas": 8.0})]
    report = Report("marketplace", Protocol.market, rows, {})
    store_report(workspace, versions.all()[-1], None, report=report, tags={})  # type: ignore[arg-type]
    assert tracking.experiments == {"adseq market"}
    assert tracking.runs == ["marketplace_report 2026-01-01", "none", "contextual"]

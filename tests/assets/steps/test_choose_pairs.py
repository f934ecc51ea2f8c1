"""Which reports still bring a pair to the raters."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.choose_pairs import reports_of
from settings import RelevanceSettings, Settings
from warehouse.contracts import SCHEMAS, LandingTable

DAY = date(2026, 3, 10)


def test_reports_count_for_some_days_after_they_arrive(tmp_path: Path) -> None:
    workspace = Workspace(Settings(home=tmp_path, relevance=RelevanceSettings(report_days=3)))
    assert reports_of(workspace, DAY).is_empty()
    for back in range(-1, 5):
        report = {
            "feedback_id": f"f{back}",
            "given_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=365 * back),
            "surface": "search",
            "query": "lamp",
            "item_id": f"{back} days ago",
        }
        rows = pl.DataFrame([report], schema=pl.Schema(SCHEMAS[LandingTable.feedback]))
        workspace.tables.write(LandingTable.feedback.value, rows, {"arrival_date": DAY - timedelta(days=back)})
    assert sorted(reports_of(workspace, DAY)["item_id"]) == ["0 days ago", "1 days ago", "2 days ago"]

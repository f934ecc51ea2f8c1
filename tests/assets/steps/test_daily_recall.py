"""What a day is measured with is read only where it is used."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.daily_recall import _log_of_day
from assets.steps.versions import ModelKind, ModelVersion
from benchmarks.stages import rows_at_hand
from settings import Settings
from tests.warehouse.ingest.arrivals import event
from warehouse.contracts import LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.landing import Manifest
from warehouse.states import write_states

DAY = date(2026, 3, 10)
BEFORE = DAY - timedelta(days=1)


@pytest.mark.parametrize(("repeats_count", "positives"), [(True, {"new", "old"}), (False, {"new"})])
def test_the_history_is_read_where_repeats_do_not_count(
    tmp_path: Path, repeats_count: bool, positives: set[str]
) -> None:
    workspace = Workspace(Settings(home=tmp_path / "home"))
    workspace.home.create()
    tables, landing = workspace.tables, workspace.landing
    landing.write_manifest(Manifest(synthetic=True, positive_events=["checkout"], repeats_count=repeats_count))
    for day, items in ((BEFORE, ["old"]), (DAY, ["old", "new"])):
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        rows = [event(f"{day} {item}", event_time=noon, item_id=item) for item in items]
        landing.write(LandingTable.events, day, pl.DataFrame(rows, schema_overrides={"advertiser_id": pl.String}))
        ingest(landing, tables, LandingTable.events, day=day, settings=workspace.settings.data)
    people = tables.scan("events").select("user_id").unique().collect()
    state = people.select("user_id", events=1, last_event_time=pl.lit(None), state=pl.lit([0.0]))
    write_states(tables, "item-1", BEFORE, rows_at_hand([state]))
    log = _log_of_day(workspace, ModelVersion(ModelKind.item, "item-1", BEFORE, "", tmp_path), DAY)
    assert set(log.asked.positives["item_id"]) == positives
    assert (log.history is None) == repeats_count
    assert log.engaged.select("item_id", "events").rows() == [("old", 1)]

"""A log whose conversions name no item runs to its end: its advertisers are learnt, predicted daily and exported."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from assets.common.workspace import Workspace
from pipelines.cli.export import export_candidates
from serving.publication import Served
from tests.assets.world import adseq
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing, Manifest
from warehouse.online import NothingPublished, open_store
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
USERS, EVENTS, ADVERTISERS = 40, 800, 4
FIRST, DAY = datetime(2024, 1, 1, tzinfo=UTC), date(2024, 3, 1)
ALONE = "conversions names an item: the advertiser model alone is trained."


def write_signups(landing: Landing) -> None:
    """Sixty days of history and one daily day; page visits name items, and the conversions name advertisers alone."""
    random = np.random.default_rng(0)
    seconds = np.sort(random.uniform(0, 61 * 86400, EVENTS))
    advertisers = random.integers(0, ADVERTISERS, EVENTS)
    converts = random.random(EVENTS) < 0.5
    events = pl.DataFrame(
        {
            "event_id": [f"e{row}" for row in range(EVENTS)],
            "user_id": [f"u{user}" for user in random.integers(0, USERS, EVENTS)],
            "event_time": [FIRST + timedelta(seconds=float(each)) for each in seconds],
            "event_name": np.where(converts, "signup", "page_visit"),
            "item_id": [None if signup else f"i{each}" for signup, each in zip(converts, advertisers, strict=True)],
            "advertiser_id": [f"a{each}" for each in advertisers],
        }
    )
    today = pl.col("event_time") >= datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    landing.write(LandingTable.events, None, events.filter(~today))
    landing.write(LandingTable.events, DAY, events.filter(today))
    landing.write_manifest(Manifest(positive_events=["signup"], prediction_window_days=7.0))


def test_advertisers_are_learnt_predicted_and_exported_without_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing, home = Landing(tmp_path / "landing"), Home(tmp_path / "home")
    write_signups(landing)
    done = adseq(home, "run", "--landing", str(landing.root))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    said = " ".join(done.stdout.split())
    assert said.count(ALONE) == 2, "once while it trains, once at the end"
    assert "`adseq export candidates` writes the advertisers of each user" in said

    monkeypatch.setenv("ADSEQ_HOME", str(home.root))
    export_candidates(Workspace.from_environment(), tmp_path / "candidates.parquet", 3, Console(file=StringIO()))
    exported = pl.read_parquet(tmp_path / "candidates.parquet")
    assert set(exported["kind"]) == {"advertiser"}
    assert exported.group_by("user_id").len()["len"].to_list() == [3] * USERS
    stored = Tables(home.tables).read("advertiser_candidates", {"model_version": "advertiser-1", "day": DAY})
    assert 0 < len(stored) < USERS

    store = open_store("lmdb", home)
    try:
        with pytest.raises(NothingPublished, match=ALONE):
            Served.newest(home.root, store)
    finally:
        store.close()

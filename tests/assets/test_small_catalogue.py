"""A shop of three items is a shop: its log is trained on, published, measured and exported."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serving.answer import answer
from serving.contracts import CandidateRequest
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.publication import Served
from settings import Settings
from tests.assets.world import adseq
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing, Manifest
from warehouse.online import open_store
from warehouse.tables import Tables

pytestmark = pytest.mark.slow
ITEMS, USERS, EVENTS = 3, 300, 6000
FIRST, DAY = datetime(2024, 1, 1, tzinfo=UTC), date(2024, 3, 1)


def write_shop(landing: Landing) -> None:
    """Sixty days of history and one daily day; one advertiser; one item is sold out."""
    random = np.random.default_rng(0)
    seconds = np.sort(random.uniform(0, 61 * 86400, EVENTS))
    events = pl.DataFrame(
        {
            "event_id": [f"e{row}" for row in range(EVENTS)],
            "user_id": [f"u{user}" for user in random.integers(0, USERS, EVENTS)],
            "event_time": [FIRST + timedelta(seconds=float(each)) for each in seconds],
            "event_name": random.choice(["page_visit", "add_to_cart", "checkout"], EVENTS, p=[0.6, 0.25, 0.15]),
            "item_id": [f"i{item}" for item in random.integers(0, ITEMS, EVENTS)],
            "advertiser_id": "shop",
        }
    )
    items = {"item_id": [f"i{item}" for item in range(ITEMS)], "availability": ["InStock", "SoldOut", None]}
    landing.write(LandingTable.items, None, pl.DataFrame(items).with_columns(advertiser_id=pl.lit("shop")))
    today = pl.col("event_time") >= datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    landing.write(LandingTable.events, None, events.filter(~today))
    landing.write(LandingTable.events, DAY, events.filter(today))
    landing.write_manifest(Manifest(prediction_window_days=7.0, repeats_count=True))


def test_a_catalogue_of_three_items_is_trained_and_published(tmp_path: Path) -> None:
    landing, home = Landing(tmp_path / "landing"), Home(tmp_path / "home")
    write_shop(landing)
    done = adseq(home, "run", "--landing", str(landing.root))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    metrics = Tables(home.tables).scan("model_metrics").collect()
    assert set(metrics.filter(report="recall")["metric"]) >= {"recall@1", "recall@1 low"}
    assert not metrics.filter(pl.col("metric").str.contains("@10|@50|@100"), pl.col("report") == "recall").height

    store = open_store("lmdb", home)
    try:
        served = Served.newest(home.root, store)
        for user in ("u0", "nobody"):
            request = CandidateRequest(user_id=user, k=10, explain=True)
            found = answer(
                served, store, request, settings=Settings().serving, watch=Stopwatch(ServiceMetrics())
            ).candidates
            assert {each.item_id for each in found} == {"i0", "i2"}
    finally:
        store.close()
    exported = tmp_path / "candidates.parquet"
    assert adseq(home, "export", "candidates", "--out", str(exported), "-k", "10").returncode == 0
    assert set(pl.read_parquet(exported).filter(kind="item")["item_id"]) == {"i0", "i2"}

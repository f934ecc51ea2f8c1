"""What is too old goes, what answers stays, and what happened is never touched."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from settings import DataSettings
from warehouse.home import Home
from warehouse.retention import Removed, sizes, sweep
from warehouse.tables import Tables

DAY = date(2026, 3, 31)
VERSION = "item-1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Ten days of everything."""
    home = Home(tmp_path).create()
    tables = Tables(home.tables)
    for back in range(10):
        day = DAY - timedelta(days=back)
        where: dict[str, str | date] = {"model_version": VERSION, "day": day}
        tables.write("item_embeddings", pl.DataFrame({"item_id": ["i"], "embedding": [[float(back)]]}), where)
        tables.write("user_states", pl.DataFrame({"user_id": ["u"]}), where)
        (home.indexes / VERSION / str(day)).mkdir(parents=True)
        (home.indexes / VERSION / str(day) / "index.faiss").write_bytes(b"x")
        (home.served / VERSION).mkdir(parents=True, exist_ok=True)
        (home.served / VERSION / f"{day}.parquet").write_bytes(b"x")
    return home


def test_days_are_kept_and_what_is_served_whatever_its_age(home: Home) -> None:
    tables, old = Tables(home.tables), DAY - timedelta(days=8)
    served = [Path("indexes") / VERSION / str(old), Path("served") / VERSION / f"{old}.parquet"]
    # Left by killed processes.
    for left in (home.served / VERSION / ".2026-01-01.parquet.4711.tmp", home.root / ".last_run.json.4711.tmp"):
        left.write_bytes(b"half of i")
    (home.relevance / ".2026-01-01.4711.tmp").mkdir(parents=True)
    (home.relevance / ".2026-01-01.4711.tmp" / "trim.skops").write_bytes(b"half of i")
    removed = sweep(home, tables, DAY, keep=DataSettings(keep_days=3), watched_days=7, served=served)
    assert removed == Removed(partitions=7, indexes=6, catalogues=6, files=0, unfinished=3)
    newest = [DAY - timedelta(days=back) for back in (2, 1, 0)]
    assert tables.days("item_embeddings", "day") == newest
    assert tables.scan("item_embeddings").collect()["embedding"].explode().sort().to_list() == [0, 1, 2]
    assert sorted(path.name for path in (home.indexes / VERSION).iterdir()) == [str(each) for each in [old, *newest]]
    assert sorted(path.stem for path in (home.served / VERSION).iterdir()) == [str(each) for each in [old, *newest]]
    assert len(tables.days("user_states", "day")) == 10
    assert sweep(home, tables, DAY, keep=DataSettings(keep_days=3), watched_days=7, served=served) == Removed(
        0, 0, 0, 0, 0
    )


def test_an_old_day_that_runs_again_takes_nothing_of_later_ones(home: Home) -> None:
    assert (
        sweep(
            home,
            Tables(home.tables),
            DAY - timedelta(days=5),
            keep=DataSettings(keep_days=3),
            watched_days=7,
            served=[],
        ).partitions
        == 2
    )
    assert len(Tables(home.tables).days("item_embeddings", "day")) == 8


def test_replaced_versions_are_kept_for_a_week(home: Home) -> None:
    tables = Tables(home.tables)
    tables.write("user_states", pl.DataFrame({"user_id": ["v"]}), {"model_version": VERSION, "day": DAY})
    on_disk = len(list(tables.path("user_states").rglob("*.parquet")))
    assert sweep(home, tables, DAY, keep=DataSettings(), watched_days=7, served=[]).files == 0
    assert len(list(tables.path("user_states").rglob("*.parquet"))) == on_disk
    assert sweep(home, tables, DAY, keep=DataSettings(keep_versions_days=0), watched_days=7, served=[]).files == 1


@pytest.mark.parametrize(("keep_days", "kept"), [(3, 5), (8, 8)])
def test_candidates_lose_their_features_once_monitoring_does_not_need_them(
    home: Home, keep_days: int, kept: int
) -> None:
    tables, days = Tables(home.tables), [DAY - timedelta(days=back) for back in range(10)]
    for day in days:
        rows = pl.DataFrame({"item_id": ["i", "j"], "relevance": [0.5, None], "features": [[1.0, None], None]})
        tables.write("scored_candidates", rows.cast({"features": pl.List(pl.Float32)}), {"day": day})

    def swept() -> Removed:
        return sweep(home, tables, DAY, keep=DataSettings(keep_days=keep_days), watched_days=4, served=[])

    assert swept().thinned == 10 - kept
    for back, day in enumerate(days):
        rows = tables.read("scored_candidates", {"day": day})
        assert rows.schema["features"] == pl.List(pl.Float32)
        assert rows["relevance"].to_list() == [0.5, None]
        assert rows["features"].to_list() == [[1.0, None] if back < kept else None, None]
    assert swept().thinned == 0


def test_sizes_are_those_of_the_disk(home: Home) -> None:
    room = sizes(home)
    assert {"tables", "indexes", "served"} <= set(room)
    assert room["indexes"] >= 10 * 512
    assert room["models"] == 0

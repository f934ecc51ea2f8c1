"""However files are cut into batches, the rows are the same; and memory is bounded by the setting."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from settings import DataSettings
from tests.warehouse.ingest.arrivals import (
    DAY,
    EVENTS,
    ITEMS,
    NOON,
    TOLERANT,
    arrive,
    as_csv,
    as_json_lines,
    event,
    write_text,
)
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.spill import STAGING, MemoryTooSmall, staging
from warehouse.tables import Tables

ROWS = [
    event(str(number % 30), user_id=f"u{number % 30 % 7}", event_time=NOON - timedelta(seconds=number))
    for number in range(40)
]
ROWS[37] |= {"event_id": "last but two", "event_name": "unheard of"}
ROWS[11] |= {"event_id": "early", "user_id": None}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_batches_of_any_size_have_the_same_rows(
    landing: Landing, tables: Tables, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.write_manifest(Manifest(synthetic=True))  # the same keys in both
    arrive(landing, [event("3", user_id="u3", event_time=NOON - timedelta(days=3))], DAY - timedelta(days=1))
    if name.endswith(".parquet"):
        arrive(landing, ROWS)
    else:
        write_text(landing, name, as_csv(ROWS) if ".csv" in name else as_json_lines(ROWS))
    others = Tables(tmp_path / "batches of three rows")
    reports = []
    for each, rows in ((tables, 10_000), (others, 3)):
        monkeypatch.setattr("warehouse.ingest.read._CHUNK_ROWS", rows)
        monkeypatch.setattr(DataSettings, "batch_bytes", 1)
        ingest(landing, each, EVENTS, day=DAY - timedelta(days=1), settings=TOLERANT)
        reports.append(ingest(landing, each, EVENTS, day=DAY, settings=TOLERANT))
    assert [(r.rows_read, r.rows_written, r.duplicates, r.rows_quarantined) for r in reports] == [(40, 28, 10, 2)] * 2
    for table in ("events", "quarantine_events", "identities"):
        assert_frame_equal(
            tables.scan(table).collect(), others.scan(table).collect(), check_row_order=table == "events"
        )
    rejected = others.read("quarantine_events", {"arrival_date": DAY}).sort("row")
    assert rejected["row"].to_list() == [12, 38]


PEAK = """
import sys, threading, time
from pathlib import Path
import psutil
from settings import DataSettings
from warehouse.contracts import LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables

process, peak = psutil.Process(), 0
def own():
    memory = process.memory_info()
    return memory.rss - memory.shared
def watch():
    global peak
    while True:
        peak = max(peak, own())
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
root = Path(sys.argv[1])
landing = Landing(root / "landing")
settings = DataSettings(memory_gib=0.25)
ingest(landing, Tables(root / "tables"), LandingTable.events, day=landing.dates()[0], settings=settings)
print(peak / 2**20)
"""


def big(rows: int) -> pl.DataFrame:
    numbers = pl.int_range(rows, eager=True).shuffle(seed=0)
    return pl.select(
        event_id=pl.format("event-{}", numbers),
        user_id=pl.format("user-{}", numbers % 100_000),
        event_time=pl.lit(NOON),
        event_name=pl.lit("checkout"),
        item_id=pl.format("item-{}", numbers % 1000),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part-0.parquet", "part-0.csv"])
def test_memory_is_bounded_by_the_setting_and_not_by_the_file(landing: Landing, tmp_path: Path, name: str) -> None:
    rows = 1_200_000
    path = landing.folder(EVENTS, DAY) / name
    path.parent.mkdir(parents=True)
    if name.endswith(".csv"):
        big(rows).write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    else:
        big(rows).write_parquet(path)
    finished = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(finished.stdout) < 256 + 300  # the setting, and the imports; reading it all at once takes twice that
    assert Tables(tmp_path / "tables").scan("events").select(pl.len()).collect().item() == rows


@pytest.mark.slow
def test_wide_rows_are_not_sorted(landing: Landing, tables: Tables) -> None:
    """120 MiB of embeddings pass through a memory of 256, with one item that is there twice."""
    rows, width = 60_000, 512
    vectors = pl.Series(np.random.default_rng(0).random((rows, width), np.float32)).cast(pl.List(pl.Float32))
    numbers = [*range(rows - 1), 0]
    landing.write(ITEMS, DAY, pl.DataFrame({"item_id": [f"i{number}" for number in numbers], "embedding": vectors}))
    report = ingest(landing, tables, ITEMS, day=DAY, settings=DataSettings(memory_gib=0.25))
    assert (report.rows_written, report.duplicates) == (rows - 1, 1)
    first = tables.scan("items").filter(pl.col("item_id") == "i0").collect()["embedding"][0]
    assert first.to_list() == vectors[0].to_list()


@pytest.mark.slow
def test_many_cores_need_no_more_memory(landing: Landing, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    landing.write(EVENTS, DAY, big(1_500_000))
    assert ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings(memory_gib=0.25)).rows_written == 1_500_000


def test_too_little_memory_is_said(tables: Tables) -> None:
    with pytest.raises(MemoryTooSmall, match="raise ADSEQ_DATA__MEMORY_GIB"), staging(tables.root, 0.25) as staged:
        staged.rows("SELECT string_agg(repeat('x', 1000), '') FROM range(1000000)")


def test_what_a_killed_ingestion_has_left_is_removed(landing: Landing, tables: Tables) -> None:
    left = tables.root / STAGING / "of a killed process"
    left.mkdir(parents=True)
    (left / "accepted-000000.parquet").write_bytes(b"somebody's rows")
    arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, day=DAY, settings=DataSettings())
    assert list((tables.root / STAGING).iterdir()) == []

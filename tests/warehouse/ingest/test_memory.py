"""However files are cut into batches, the rows are the same; and memory is bounded by the setting."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from settings import DataSettings
from tests.warehouse.ingest.arrivals import (
    DAY,
    EVENTS,
    NOON,
    TOLERANT,
    arrive,
    as_csv,
    as_json_lines,
    event,
    write_text,
)
from warehouse.ingest import ingest
from warehouse.landing import Landing, Manifest
from warehouse.staging import STAGING
from warehouse.tables import Tables

ROWS = [
    event(str(number % 30), user_id=f"u{number % 7}", event_time=NOON - timedelta(seconds=number))
    for number in range(40)
]
ROWS[37] |= {"event_id": "last but two", "event_name": "unheard of"}
ROWS[11] |= {"event_id": "early", "user_id": None}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_batches_of_any_size_have_the_same_rows(
    landing: Landing, tables: Tables, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.write_manifest(Manifest(synthetic=True))  # the same keys in both
    arrive(landing, [event("3", event_time=NOON - timedelta(days=3))], DAY - timedelta(days=1))
    if name.endswith(".parquet"):
        arrive(landing, ROWS)
    else:
        write_text(landing, name, as_csv(ROWS) if ".csv" in name else as_json_lines(ROWS))
    others = Tables(tmp_path / "batches of three rows")
    reports = []
    for each, rows in ((tables, 10_000), (others, 3)):
        monkeypatch.setattr("warehouse.reading._CHUNK_ROWS", rows)
        monkeypatch.setattr(DataSettings, "batch_bytes", 1)
        ingest(landing, each, EVENTS, DAY - timedelta(days=1), TOLERANT)
        reports.append(ingest(landing, each, EVENTS, DAY, TOLERANT))
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
from warehouse.ingest import ingest
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
ingest(landing, Tables(root / "tables"), LandingTable.events, landing.dates()[0], DataSettings(memory_gib=0.25))
print(peak / 2**20)
"""


@pytest.mark.slow
def test_memory_is_bounded_by_the_setting_and_not_by_the_file(landing: Landing, tmp_path: Path) -> None:
    rows = 2_000_000
    numbers = pl.int_range(rows, eager=True).shuffle(seed=0)
    log = pl.select(
        event_id=pl.format("event-{}", numbers),
        user_id=pl.format("user-{}", numbers % 100_000),
        event_time=pl.lit(NOON),
        event_name=pl.lit("checkout"),
        item_id=pl.format("item-{}", numbers % 1000),
    )
    landing.write(EVENTS, DAY, log)
    finished = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (
        float(finished.stdout) < 256 + 300
    )  # the setting, and the imports; reading it all at once takes more than twice that
    assert Tables(tmp_path / "tables").scan("events").select(pl.len()).collect().item() == rows


def test_what_a_killed_ingestion_has_left_is_removed(landing: Landing, tables: Tables) -> None:
    left = tables.root / STAGING / "of a killed process"
    left.mkdir(parents=True)
    (left / "accepted-000000.parquet").write_bytes(b"somebody's rows")
    arrive(landing, [event("1")])
    ingest(landing, tables, EVENTS, DAY, DataSettings())
    assert list((tables.root / STAGING).iterdir()) == []

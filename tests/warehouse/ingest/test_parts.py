"""An arrival that a cluster reads in parts has the rows that it has in one process."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.local import LocalEngine
from settings import DataSettings
from tests.warehouse.ingest.arrivals import DAY, EVENTS, arrive, event, random_rows
from warehouse.contracts import LandingTable
from warehouse.forget import add_tombstones
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import IngestReport, ingest
from warehouse.ingest.read import LandingError
from warehouse.landing import Landing, Manifest
from warehouse.spill import STAGING, staging
from warehouse.tables import Tables

BEFORE = DAY - timedelta(days=1)
A_FILE_A_PART = DataSettings(maximum_quarantine_share=1.0, part_mib=0)


class TwoAtOnce(LocalEngine):
    """An engine that says it has two processes."""

    def at_once(self) -> int:
        return 2


@pytest.fixture
def synthetic(landing: Landing) -> Landing:
    landing.write_manifest(Manifest(synthetic=True))  # the same keys in all tables
    return landing


def read(landing: Landing, tables: Tables, engine: LocalEngine, table: LandingTable = EVENTS) -> list[IngestReport]:
    """Ingest the day before and the day, of which a user has been forgotten."""
    add_tombstones(tables, pl.Series([UserKeys.of(tables, landing).key("u3")]), DAY)
    days = (BEFORE, DAY)
    return [ingest(landing, tables, table, day=day, settings=A_FILE_A_PART, engine=engine) for day in days]


@pytest.mark.parametrize("seed", range(4))
def test_the_rows_are_those_of_one_process(synthetic: Landing, tables: Tables, tmp_path: Path, seed: int) -> None:
    random, others = np.random.default_rng(seed), Tables(tmp_path / "in parts")
    arrive(synthetic, random_rows(random, 50), BEFORE)
    for part in range(int(random.integers(2, 6))):
        arrive(synthetic, random_rows(random, int(random.integers(10, 80))), part=f"part-{part}")
    whole, parts = (read(synthetic, each, engine) for each, engine in ((tables, LocalEngine()), (others, TwoAtOnce())))
    apart = {"seconds": 0, "parts": 0}
    assert [asdict(report) | apart for report in parts] == [asdict(report) | apart for report in whole]
    assert (whole[1].parts, parts[1].parts) == (1, parts[1].files)
    assert whole[1].duplicates > 0 < whole[1].late
    assert whole[1].forgotten > 0 < whole[1].rows_quarantined
    for table in ("events", "quarantine_events", "identities"):
        ordered = table == "events"
        found, expected = others.scan(table).collect(), tables.scan(table).collect()
        assert_frame_equal(found, expected, check_exact=True, check_row_order=ordered)
    assert len(others.files("events")) > len(tables.files("events"))
    assert not list((others.root / STAGING).iterdir())


def test_items_are_those_of_one_process(synthetic: Landing, tables: Tables, tmp_path: Path) -> None:
    others = Tables(tmp_path / "in parts")
    for part, names in enumerate(("ab", "bc", "cd")):
        rows = pl.DataFrame({"item_id": list(names), "title": [f"{name} of {part}" for name in names]})
        synthetic.write(LandingTable.items, DAY, rows, f"part-{part}")
    read(synthetic, tables, LocalEngine(), LandingTable.items)
    read(synthetic, others, TwoAtOnce(), LandingTable.items)
    assert others.scan("items").collect()["title"].sort().to_list() == ["a of 0", "b of 0", "c of 1", "d of 2"]
    assert_frame_equal(others.scan("items").collect(), tables.scan("items").collect(), check_row_order=False)


def test_parts_without_an_accepted_row_leave_an_empty_day(synthetic: Landing, tables: Tables) -> None:
    for part in range(3):
        arrive(synthetic, [event("1", user_id=None)], part=f"part-{part}")
    report = read(synthetic, tables, TwoAtOnce())[1]
    assert (report.rows_read, report.rows_written, report.rows_quarantined) == (3, 0, 3)
    assert tables.read("events", {"arrival_date": DAY}).is_empty()


def test_a_part_that_cannot_be_read_leaves_the_day_as_it_was(synthetic: Landing, tables: Tables) -> None:
    for part in range(3):
        arrive(synthetic, [event(str(part))], part=f"part-{part}")
    read(synthetic, tables, TwoAtOnce())
    before = tables.scan("events").collect()
    broken = synthetic.folder(EVENTS, DAY) / "part-2.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(LandingError, match=r"part-2\.parquet: the file must be whole"):
        read(synthetic, tables, TwoAtOnce())
    assert_frame_equal(tables.scan("events").collect(), before)
    assert not list((tables.root / STAGING).iterdir())


def test_no_staged_piece_is_lost(tmp_path: Path) -> None:
    pieces = [pl.DataFrame({"n": numbers}, schema={"n": pl.Int64}) for numbers in ([], [1, 2], [3], [], [4])]
    with staging(tmp_path, 0.5) as staged:
        for piece in pieces:
            staged.add("numbers", piece)
        assert staged.rows("SELECT n FROM numbers ORDER BY n") == [(1,), (2,), (3,), (4,)]
        assert pl.concat(staged.pieces("numbers"))["n"].to_list() == [1, 2, 3, 4]

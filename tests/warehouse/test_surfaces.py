"""A surface is one line of one table: here a surface is added to a copy of the table, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import warehouse.surfaces

ADDED = '    closeup = "closeup", Carries.subject\n'
WITH_IT = """
import sys, types
import polars as pl
table = types.ModuleType("warehouse.surfaces")
sys.modules["warehouse.surfaces"] = table
exec(open(sys.argv[1]).read(), table.__dict__)

from warehouse.contracts import SCHEMAS, LandingTable
from datetime import UTC, datetime
row = dict(request_id="r", request_time=datetime(2026, 1, 1, tzinfo=UTC), user_id="u", subject_item_id="i", query=None,
           item_id="j", source=None, stage="clicked")
Impression = SCHEMAS[LandingTable.impressions]
names = ("closeup", "billboard", "search")
rows = pl.DataFrame([{**row, "surface": name} for name in names], pl.Schema(Impression))
good, bad = Impression.filter(rows)
print(good["surface"].to_list())

from pydantic import ValidationError
from serving.contracts import CandidateRequest
print(CandidateRequest(user_id="u", surface="closeup", subject_item_id="i").surface.value)
for asked in ({"surface": "closeup", "query": "chair"}, {"surface": "search", "subject_item_id": "i"}):
    try:
        CandidateRequest(user_id="u", **asked)
    except ValidationError as error:
        print(error.errors()[0]["msg"])

from datetime import date
from pathlib import Path
from assets.steps.comparison import read_impressions
from warehouse.tables import Tables
tables = Tables(Path(sys.argv[2]))
tables.write("impressions", rows, {"arrival_date": date(2026, 1, 1)})
print(read_impressions(tables, date(2026, 1, 1))["surface"].to_list())
"""


@pytest.mark.slow
def test_a_surface_more_is_one_line(tmp_path: Path) -> None:
    """The contract takes its impressions, the service its requests, and the context report counts both."""
    source = Path(warehouse.surfaces.__file__).read_text()
    last = '    home_feed = "home_feed", Carries.nothing\n'
    assert source.count(last) == 1
    (tmp_path / "surfaces.py").write_text(source.replace(last, last + ADDED))
    command = [sys.executable, "-c", WITH_IT, str(tmp_path / "surfaces.py"), str(tmp_path / "tables")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['closeup', 'search']",
        "closeup",
        "Value error, query belongs to the surface search",
        "Value error, subject_item_id belongs to the surface related_pins or closeup",
        "['closeup', 'search']",
    ]

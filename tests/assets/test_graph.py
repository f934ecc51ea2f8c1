"""The asset graph is what asset_graph.txt says, and every asset says what it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import processes
from tests.assets.graph import SNAPSHOT, UPDATE

PROJECT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json
from tests.assets.graph import describe
text = describe()
from pipelines.definitions import defs
graph = defs.get_repository_def().asset_graph
columns = "dagster/column_schema"
assets = {
    key.to_user_string(): {
        "description": graph.get(key).description or "",
        "kinds": sorted(graph.get(key).kinds),
        "owners": list(graph.get(key).owners),
        "columns": [column.name for column in graph.get(key).metadata[columns].columns]
        if columns in graph.get(key).metadata else [],
    }
    for key in graph.get_all_asset_keys()
}
checks = {
    f"{check.name} of {check.asset_key.to_user_string()}": graph.get_check_spec(check).description or ""
    for check in graph.asset_check_keys
}
print(json.dumps({"text": text, "assets": assets, "checks": checks}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, object]:
    """What a process that loads the definitions sees."""
    done = processes.run(SCRIPT, environment=os.environ)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_graph_is_that_of_the_snapshot(loaded: dict[str, str]) -> None:
    assert loaded["text"].splitlines() == SNAPSHOT.read_text().splitlines(), f"if the change is meant: {UPDATE}"


def test_every_asset_has_a_description_kinds_and_owners(loaded: dict[str, dict[str, dict[str, str]]]) -> None:
    assert len(loaded["assets"]) >= 20
    for name, asset in loaded["assets"].items():
        assert len(asset["description"]) > 40, name
        assert asset["kinds"], name
        assert asset["owners"], name


def test_every_table_shows_its_columns(loaded: dict[str, dict[str, dict[str, list[str]]]]) -> None:
    """All but what writes no table of its own: models, index, reports, the sweep, the history (four tables)."""
    without = {name for name, asset in loaded["assets"].items() if not asset["columns"]}
    subjects = ("recall", "diversity", "context", "marketplace", "advertiser_recall")
    reports = {f"{subject}_report" for subject in subjects}
    assert without == {
        *("history", "item_model", "advertiser_model", "champion", "item_index", "alpha_sweep", "retention"),
        *reports,
    }
    assert {"event_id", "user_id", "event_time"} <= set(loaded["assets"]["events"]["columns"])


def test_every_check_says_what_it_checks(loaded: dict[str, dict[str, str]]) -> None:
    assert loaded["checks"]
    assert all(len(description) > 10 for description in loaded["checks"].values())

"""`adseq relevance queue`: what raters get next, how far they are, and what to do."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.cli.errors import RunRefused
from pipelines.cli.show_queue import queue_of
from tests.serving.queues import BESIDE_LAMP, BESIDE_RUG, SEARCHED, home_with_queue, queue
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.live_rows import LiveRows
from warehouse.queued_pairs import LABELLING_QUEUE


def label(home: Home, rater_id: str, pair: dict[str, str]) -> None:
    """A judgement as the service writes it."""
    row = {"subject_item_id": None, "query": None, **pair, "rater_id": rater_id, "label": 4}
    row["labelled_at"] = datetime(2026, 3, 4, 12, tzinfo=UTC).isoformat()
    LiveRows(Landing(home.landing)).append(LandingTable.relevance_labels, [row], datetime(2026, 3, 4, 12, tzinfo=UTC))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three pairs: one is done, one is begun."""
    rows = queue([BESIDE_LAMP | {"reason": "reported", "stage": None}, SEARCHED, BESIDE_RUG | {"rater_ids": ["bob"]}])
    home = home_with_queue(tmp_path / "home", rows)
    label(home, "ann", BESIDE_RUG)
    label(home, "ann", BESIDE_LAMP)
    return home


def shown(home: Home, *options: str) -> str:
    result = CliRunner().invoke(app, ["relevance", "queue", "--home", str(home.root), *options], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_person_sees_counts_raters_titles_and_what_to_do(home: Home) -> None:
    text = shown(home)
    assert "Pairs for raters after 2026-03-03" in text
    assert "3 pairs, 1 of them reported: 1 have 2 raters, 1 have fewer, 1 have none." in text
    assert "Judged by rater: ann 2, bob 1." in text
    assert "Rustic Armchair" in text
    assert "Floor Lamp <b> (reported)" in text
    assert "“red “chair””" in text
    assert "Wool Rug" not in text.split("The first pairs that lack raters")[1]  # done
    assert f"adseq serve --home {home.root}, then judge at http://127.0.0.1:8080/label" in text.replace("\n", "")


def test_json_has_the_same_figures(home: Home) -> None:
    found = json.loads(shown(home, "--json", "--count", "1"))
    assert (found["day"], found["pairs"], found["done"], found["begun"], found["reported"]) == (
        "2026-03-03",
        3,
        1,
        1,
        1,
    )
    assert found["raters"] == {"ann": 2, "bob": 1}
    assert found["strata"] == [
        {"surface": "related_pins", "stage": None, "content_type": "video", "pairs": 1, "done": 0},
        {"surface": "related_pins", "stage": "ranked", "content_type": "shopping", "pairs": 1, "done": 1},
        {"surface": "search", "stage": "ranked", "content_type": None, "pairs": 1, "done": 0},
    ]
    (first,) = found["next"]
    assert (first["position"], first["item_id"], first["title"], first["raters"]) == (
        0,
        "lamp",
        "Floor Lamp <b>",
        ["ann"],
    )


def test_a_queue_that_is_done_says_so(home: Home) -> None:
    for rater in ("bob", "eve"):
        label(home, rater, SEARCHED)
        label(home, rater, BESIDE_LAMP)
    assert "All pairs are judged" in shown(home)


def test_without_a_pair_the_command_refuses_and_says_what_makes_one(tmp_path: Path) -> None:
    home = home_with_queue(tmp_path / "home", queue([]))
    result = CliRunner().invoke(app, ["relevance", "queue", "--home", str(home.root)])
    assert (result.exit_code, result.stdout) == (2, "")
    with pytest.raises(RunRefused, match="queue is empty"):
        queue_of(home)
    shutil.rmtree(home.tables / LABELLING_QUEUE)
    with pytest.raises(RunRefused, match=r"run a day \(adseq run\)"):
        queue_of(home)

"""What a landing zone holds, said before anything runs, agrees with what ingestion does."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from settings import DataSettings
from tests.warehouse.ingest.arrivals import DAY, EVENTS, ITEMS, NOON, TOLERANT, arrive, event, write_text
from warehouse.contracts import LandingTable
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing, Manifest
from warehouse.tables import Tables
from warehouse.validate_landing import validate


def test_what_is_good_and_what_is_not_agrees_with_ingestion(landing: Landing, tables: Tables) -> None:
    arrive(
        landing,
        [
            event("1"),
            event("2", value=-1.0),
            event("3", event_name="bought"),
            event("1"),
            event("1", user_id="another"),
            event("4", colour="red"),
        ],
    )
    write_text(landing, "a.jsonl", '{"item_id": "i", "title": "Chair"}\n{"item_id": ""}\n', ITEMS)
    found = validate(landing, TOLERANT)
    for table in (EVENTS, ITEMS):
        report, verdict = ingest(landing, tables, table, day=DAY, settings=TOLERANT), found.verdicts[table]
        assert dict(verdict.broken) == report.quarantined
        assert (verdict.rows, verdict.files) == (report.rows_read, report.files)
        assert verdict.good - verdict.repeated == report.rows_written
    assert found.verdicts[EVENTS].examples["value is not below its minimum"].endswith("part-0.parquet, row 2")
    assert found.verdicts[EVENTS].ignored_columns == {"colour"}
    assert found.by_name == {"checkout": 3}  # one of the four was sent again
    assert found.problems == ()


def test_embeddings_are_held_against_the_same_length_as_ingestion_does(landing: Landing, tables: Tables) -> None:
    """Of all files of the first arrival, not of its first file."""
    arrive(landing, [event("1")])
    pairs = (("a", [1]), ("b", [1, 2]), ("c", [3, 4]))
    rows = [json.dumps({"item_id": item_id, "embedding": embedding}) for item_id, embedding in pairs]
    for name, row in zip("abc", rows, strict=True):
        write_text(landing, f"{name}.jsonl", row, ITEMS)
    found = validate(landing, TOLERANT).verdicts[ITEMS]
    assert dict(found.broken) == ingest(landing, tables, ITEMS, day=DAY, settings=TOLERANT).quarantined
    assert found.good == 2


def test_it_says_what_is_missing_and_what_that_costs(landing: Landing) -> None:
    arrive(landing, [event("1", value=None)])
    write_text(landing, "a.csv", "item_id,category\ni,Home\n", ITEMS)
    missing = [text for verdict in validate(landing, DataSettings()).verdicts.values() for text in verdict.missing]
    for words in (
        "no `value`: every checkout counts the same",
        "it is taken from the item",
        "no titles",
        "no prices",
        "no demographics",
        "basket proxy",
    ):
        assert [text for text in missing if words in text], words
    assert not [text for text in missing if "no categories" in text]


def test_whatever_would_stop_a_run_is_a_problem(landing: Landing, tables: Tables) -> None:
    assert "no folder named date=" in validate(landing, DataSettings()).problems[0]
    arrive(landing, [event("1", event_name="page_visit"), *(event(str(n), value=-1.0) for n in range(2, 5))])
    write_text(landing, "broken.parquet", "PAR1")
    landing.write_manifest(Manifest(positive_events=["signup"]))
    problems = validate(landing, DataSettings()).problems
    for words in ("broken.parquet", "75.0% (more than 5.0% of the rows break a rule)", "no event is one of signup"):
        assert [problem for problem in problems if words in problem], words


def test_a_first_folder_of_a_day_to_come_is_a_problem(landing: Landing) -> None:
    """A run would refuse to date the history by it."""
    arrive(landing, [event("1")], day=None)
    tomorrow = landing.today() + timedelta(days=1)
    folder = arrive(landing, [event("2")], day=tomorrow).parent
    [problem] = validate(landing, DataSettings()).problems
    assert "dated after today" in problem
    assert str(folder) in problem


def test_nothing_is_written(landing: Landing, tmp_path: Path) -> None:
    arrive(landing, [event("1")])
    before = sorted(tmp_path.rglob("*"))
    validate(landing, DataSettings())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_later_version_of_an_item_is_not_sent_again(landing: Landing) -> None:
    arrive(landing, [event("1")])
    for name in ("a.csv", "b.csv"):
        write_text(landing, name, "item_id\ni\n", ITEMS)
    assert validate(landing, DataSettings()).verdicts[ITEMS].repeated == 0


def test_a_log_that_is_short_for_its_prediction_window_is_noted(landing: Landing) -> None:
    arrive(landing, [event("1"), event("2", event_time=NOON - timedelta(days=29))])
    landing.write_manifest(Manifest(prediction_window_days=28))
    (note,) = validate(landing, DataSettings()).notes
    assert note.startswith("30 days are few for a prediction window of 28 days")
    assert "to at most 10" in note
    landing.write_manifest(Manifest(prediction_window_days=7))
    assert validate(landing, DataSettings()).notes == ()


def test_ads_of_items_that_nobody_knows_are_noted(landing: Landing) -> None:
    ads = LandingTable.ads
    arrive(landing, [event("1", item_id="sold")])
    write_text(landing, "a.csv", "item_id\nlisted\n", ITEMS)
    write_text(
        landing, "a.csv", "ad_id,item_id,bid,status\n1,sold,1,\n2,listed,1,aus\n3,typo,1,\n3,typo,2,paused\n", ads
    )
    found = validate(landing, DataSettings())
    assert found.verdicts[ads].good == 4
    assert found.verdicts[ads].repeated == 0  # a newer version is no repetition
    assert [text for text in found.verdicts[ads].missing if "no ad ever runs out of budget" in text]
    [note] = [note for note in found.notes if "ads are of an item" in note]
    [status] = [note for note in found.notes if note.startswith("ads: status")]
    assert "'aus' (1 rows)" in status
    assert "paused' (" not in status
    assert note.startswith("1 of 3 ads are of an item that neither the catalogue nor an event names, e.g. 'typo'")

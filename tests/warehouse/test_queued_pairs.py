"""The queue as readers see it: the newest with a pair, and each label once, whichever process wrote it and when."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from warehouse.contracts import LandingTable
from warehouse.landing import Landing
from warehouse.queued_pairs import LABELLING_QUEUE, Labelling, Pair, why_no_queue
from warehouse.tables import Tables

DAY = date(2026, 3, 3)
COLUMNS = dict.fromkeys(Pair._fields, pl.String())
SCHEMA = pl.Schema({"position": pl.Int64(), **COLUMNS, "rater_ids": pl.List(pl.String())})
PAIR = {"surface": "search", "subject_item_id": None, "query": "chair", "item_id": "a"}


@pytest.fixture
def labelling(tmp_path: Path) -> Labelling:
    return Labelling(Tables(tmp_path / "tables"), Landing(tmp_path / "landing"))


def write(labelling: Labelling, day: date, *items: str, raters: tuple[str, ...] = ()) -> None:
    rows = [PAIR | {"item_id": item, "position": place, "rater_ids": list(raters)} for place, item in enumerate(items)]
    labelling.tables.write(LABELLING_QUEUE, pl.DataFrame(rows, schema=SCHEMA), {"day": day})


def file_of(labelling: Labelling, day: date, name: str) -> Path:
    folder = labelling.landing.folder(LandingTable.relevance_labels, day)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def line(rater_id: str, label: int, second: int = 0, **changed: Any) -> str:
    row = PAIR | {"rater_id": rater_id, "label": label, "labelled_at": f"2026-03-04T12:00:{second:02}+00:00"} | changed
    return json.dumps(row) + "\n"


def labels(labelling: Labelling, item_id: str = "a") -> dict[str, int]:
    queue = labelling.current()
    assert queue is not None
    found = queue.pairs[Pair.of(PAIR | {"item_id": item_id})].judgements
    return {rater: judgement.label for rater, judgement in found.items()}


def test_a_home_without_a_queue_says_what_makes_one(labelling: Labelling) -> None:
    assert labelling.current() is None
    assert "adseq run" in why_no_queue(labelling.tables)
    write(labelling, DAY)
    assert labelling.current() is None
    assert "is empty" in why_no_queue(labelling.tables)


def test_the_newest_queue_counts_and_an_older_one_keeps_its_rows(labelling: Labelling) -> None:
    write(labelling, DAY, "a", "b", raters=("ann",))
    assert labels(labelling) == {"ann": 0}
    write(labelling, DAY + timedelta(days=1), "c")
    queue = labelling.current()
    assert queue is not None
    assert (queue.day, [pair.item_id for pair in queue.pairs]) == (DAY + timedelta(days=1), ["c"])
    assert labelling.earlier(Pair.of(PAIR | {"item_id": "c"})) is not None
    row = labelling.earlier(Pair.of(PAIR))
    assert row is not None
    assert (row["day"], row["rater_ids"]) == (DAY, ["ann"])
    assert labelling.earlier(Pair.of(PAIR | {"query": None})) is None


def test_lines_are_read_as_they_come_and_half_a_line_when_it_is_whole(labelling: Labelling) -> None:
    write(labelling, DAY, "a")
    path = file_of(labelling, DAY + timedelta(days=1), "live-1-a.jsonl")
    path.write_text(line("ann", 4))
    assert labels(labelling) == {"ann": 4}
    whole = line("bob", 2)
    with path.open("a") as file:
        file.write(whole[:20])
    assert labels(labelling) == {"ann": 4}
    with path.open("a") as file:
        file.write(whole[20:] + line("eve", 1))
    assert labels(labelling) == {"ann": 4, "bob": 2, "eve": 1}


def test_the_newest_label_of_a_rater_counts_in_whatever_order_the_files_are_read(labelling: Labelling) -> None:
    write(labelling, DAY, "a")
    file_of(labelling, DAY, "live-1-a.jsonl").write_text(line("ann", 5, second=9))
    file_of(labelling, DAY, "live-2-b.jsonl").write_text(line("ann", 1, second=3))
    assert labels(labelling) == {"ann": 5}


def test_labels_of_before_the_queue_of_exports_and_of_other_pairs_are_not_read(labelling: Labelling) -> None:
    write(labelling, DAY, "a")
    file_of(labelling, DAY - timedelta(days=1), "live-1-a.jsonl").write_text(line("ann", 5))
    file_of(labelling, DAY, "export.jsonl").write_text(line("bob", 5))
    file_of(labelling, DAY, "live-1-a.jsonl").write_text(line("eve", 5, item_id="z"))
    assert labels(labelling) == {}


def test_a_new_queue_knows_the_labels_that_came_in_after_its_day(labelling: Labelling) -> None:
    write(labelling, DAY, "a")
    path = file_of(labelling, DAY + timedelta(days=2), "live-1-a.jsonl")
    path.write_text(line("ann", 4) + line("bob", 3, item_id="b"))
    assert labels(labelling) == {"ann": 4}
    write(labelling, DAY + timedelta(days=1), "b")
    assert labels(labelling, "b") == {"bob": 3}


def test_a_file_that_was_replaced_is_read_from_its_start(labelling: Labelling) -> None:
    write(labelling, DAY, "a")
    path = file_of(labelling, DAY, "live-1-a.jsonl")
    path.write_text(line("ann", 4) + line("bob", 4))
    assert labels(labelling) == {"ann": 4, "bob": 4}
    other = path.with_name("other")
    other.write_text(line("eve", 1))
    other.replace(path)
    assert labels(labelling) == {"ann": 4, "bob": 4, "eve": 1}


DAMAGED = (
    '{"surface": "search", "query": "secret words", "item_',
    '"secret words"',
    "null",
    line("secret words", 3, labelled_at=None).strip(),
    line("secret words", 3, item_id=["a"]).strip(),
    line("secret words", 3).replace('"label": 3, ', "").strip(),
)


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_line_is_skipped_and_the_lines_after_it_count(
    labelling: Labelling, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(labelling, DAY, "a")
    path = file_of(labelling, DAY, "live-1-a.jsonl")
    path.write_text(line("ann", 4) + damaged + "\n" + line("bob", 2))
    assert labels(labelling) == {"ann": 4, "bob": 2}
    assert path.name in caplog.text
    assert "secret words" not in caplog.text


def test_bytes_that_are_no_text_are_a_damaged_line(labelling: Labelling) -> None:
    write(labelling, DAY, "a")
    path = file_of(labelling, DAY, "live-1-a.jsonl")
    path.write_bytes(b"\x00\xff\xfe{\n" + line("bob", 2).encode())
    assert labels(labelling) == {"bob": 2}

"""Files of strangers: each is read as it was meant, or one sentence says which line it is and what to do."""

from __future__ import annotations

import json
import os
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from settings import DataSettings
from warehouse.contracts import LandingTable
from warehouse.importers.landing_writer import SourceError
from warehouse.importers.mapping import Mapping, MappingError
from warehouse.importers.tabular import TabularSummary, import_tables
from warehouse.ingest.json_lines import json_batches
from warehouse.landing import Landing, ManifestError
from warehouse.validate_landing import Validation, validate

MEMORY = 0.25  # GiB
HEADER = "when,who,what,sku,brand"
BEGIN = datetime(2026, 3, 20)
LINES = [
    f"{BEGIN + timedelta(hours=7 * n):%Y-%m-%d %H:%M:%S},u{n % 7},{('view', 'buy')[n % 2]},s{n % 9},B{n % 3}"
    for n in range(60)
]
EVENTS = {
    "user_id": "who",
    "event_time": "when",
    "event_name": {"constant": "checkout"},
    "item_id": "sku",
    "advertiser_id": "brand",
}
ITEMS = {"item_id": "sku", "advertiser_id": "brand"}


def imported(path: Path, root: Path, **log: Any) -> TabularSummary:
    """Import a file's events and items."""
    tables = [{"into": "events", "columns": EVENTS}, {"into": "items", "columns": ITEMS}]
    mapping = Mapping.model_validate({"log": {"daily_days": 2, **log}, "table": tables})
    return import_tables([path], mapping, Landing(root), MEMORY)


def landed(root: Path, table: str) -> pl.DataFrame:
    """The rows of a table's landing files."""
    return pl.read_parquet([*root.glob(f"{table}/*/*.parquet")], glob=False)


BAD = "a,b"  # a line that is no row
ABOVE = {
    "nothing": "",
    "blank lines": "\n\n",
    "comments": "# exported on 2026-04-01\n",
    "the comments of GA4": "# ------\n# Free form\n# 20260301-20260331\n# ------\n\n",
    "the delimiter for Excel": "sep=,\n",
}


@pytest.mark.parametrize("above", ABOVE.values(), ids=ABOVE)
def test_lines_above_the_header_do_not_matter_and_count_in_messages(tmp_path: Path, above: str) -> None:
    (tmp_path / "a.csv").write_text(above + "\n".join([HEADER, *LINES[:30], BAD, *LINES[30:]]) + "\n")
    summary = imported(tmp_path / "a.csv", tmp_path / "landing")
    assert summary.rows[LandingTable.events] == len(LINES)
    assert f"line {above.count(chr(10)) + 32}: 2 fields where the header names 5" in "\n".join(summary.lines())
    assert landed(tmp_path / "landing", "events")["source_row"].max() == above.count("\n") + len(LINES) + 2


REFUSED = {
    "a title": ("Sales of March\nfrom the shop\n\n" + "\n".join([HEADER, *LINES]), "line 4: the columns seem to begin"),
    "a title in columns": (
        "Sales;;;\n\n" + "\n".join([HEADER, *LINES]).replace(",", ";"),
        "line 3: the columns seem to begin here",
    ),
    "no header": ("\n".join(line.split(",", 1)[1] for line in LINES), "line 1: .* is a value and not the name"),
    "another separator": ("\n".join([HEADER, *LINES]).replace(",", "^"), r"line 1: 'when\^who\^what.* is one column"),
    "a web page": ("<!DOCTYPE html>\n<html>Your session has expired</html>\n", "line 1: '<!DOCTYPE html>' is one"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_a_header_that_is_none_is_named_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(SourceError, match=said):
        imported(tmp_path / "a.csv", tmp_path / "landing")


def test_a_header_within_the_rows_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *LINES[:20], HEADER, *LINES[20:]]))
    summary = imported(tmp_path / "a.csv", tmp_path / "landing")
    assert summary.rows[LandingTable.events] == len(LINES)
    assert "sku" not in landed(tmp_path / "landing", "items")["item_id"].to_list()
    assert "line 22: the header again" in "\n".join(summary.lines())


def test_a_long_line_is_read(tmp_path: Path) -> None:
    long = LINES[9] + "x" * 3_000_000
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *LINES[:9], long, *LINES[10:]]))
    assert imported(tmp_path / "a.csv", tmp_path / "landing").rows[LandingTable.events] == len(LINES)


@pytest.mark.parametrize("encoding", ["rot13", "hex", "zlib", "cp12x51"])
def test_an_encoding_of_no_text_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        f'[log]\nencoding = "{encoding}"\n[[table]]\ninto = "events"\n[table.columns]\n'
        'user_id = "who"\nevent_time = "when"\nevent_name = "what"\n'
    )
    with pytest.raises(MappingError, match=f"'{encoding}' is no encoding of text"):
        Mapping.read(path)


def test_numbers_are_written_alike_whether_or_not_a_line_near_has_nan(tmp_path: Path) -> None:
    row = {"id": 12.0, "price": 0.5, "large": 1e20, "small": 1e-7, "nested": {"id": 3.0, "list": [1.0, 2.5]}}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(row) + '\n{"price": NaN}\n')
    [(_, plain)] = json_batches(tmp_path / "a.jsonl", list(row), 10, [])
    [(_, with_nan)] = json_batches(tmp_path / "b.jsonl", list(row), 10, [])
    assert plain.row(0) == with_nan.row(0)


def test_folders_may_be_named_with_what_patterns_are_made_of(tmp_path: Path) -> None:
    folder = tmp_path / "[red]a [" / "b*?"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("\n".join([HEADER, *LINES]))
    assert imported(folder / "a.csv", folder / "L[1]").rows[LandingTable.events] == len(LINES)
    assert checked(folder / "L[1]").verdicts[LandingTable.events].good == len(LINES)


def checked(root: Path) -> Validation:
    """Validate a landing zone."""
    return validate(Landing(root), DataSettings())


MANIFESTS = {
    "prediction_window_days = 1e9": "prediction_window_days",
    "prediction_window_days = inf": "prediction_window_days",
    "positive_events = []": "positive_events",
    'repeats_count = "tags"': "repeats_count",
    'time_zone = "Europe"': "time_zone",
}


@pytest.mark.parametrize(("line", "named"), MANIFESTS.items())
def test_a_manifest_that_no_run_can_follow_names_the_field(tmp_path: Path, line: str, named: str) -> None:
    (tmp_path / "manifest.toml").write_text(line)
    with pytest.raises(ManifestError, match=f"manifest.toml: .*{named}"):
        _ = Landing(tmp_path).manifest


def test_a_byte_order_mark_in_a_manifest_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_bytes('\ufeffname = "Größe"\n'.encode())
    assert Landing(tmp_path).manifest.name == "Größe"


def test_a_file_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.csv")
    (tmp_path / name).write_text("\n".join([HEADER, *LINES]))
    with pytest.raises(SourceError, match=r"\\xff\.csv: the name is not UTF-8"):
        imported(tmp_path / name, tmp_path / "landing")
    day = tmp_path / "landing" / "events" / "date=2026-03-28"
    day.mkdir(parents=True)
    (day / name).write_text("event_id,user_id,event_time,event_name\n")
    [problem] = [text for text in checked(tmp_path / "landing").problems if "UTF-8" in text]
    assert r"\xff.csv: the name is not UTF-8" in problem


LANDED = "event_id,user_id,event_time,event_name,item_id\n"
ROW = "{},c1,2026-03-28 10:00,checkout,s1\n"
BROKEN = {
    "a field too many": (LANDED + ROW.format(1) + ROW.format(2).replace("s1", "s1,x"), "line 3 has 6 fields where"),
    "an open quote": (LANDED + ROW.format(1) + ROW.format('"2') + ROW.format(3), "line 3 opens a quote"),
    "semicolons": ((LANDED + ROW.format(1)).replace(",", ";"), "commas between its columns, and has ';'"),
    "UTF-16": ((LANDED + ROW.format(1)).encode("utf-16"), "looks like UTF-16"),
    "Latin-1": (LANDED.encode() + ROW.format("é").encode("latin-1"), "line 2 has a byte that is not UTF-8"),
}


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_csv_file_of_the_landing_zone_is_named_with_the_line(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = tmp_path / "events" / "date=2026-03-28" / "a.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert any(f"{path}: " in text and said in text for text in checked(tmp_path).problems)


def test_an_arrival_that_stops_a_run_names_the_rule_and_a_row(tmp_path: Path) -> None:
    Landing(tmp_path).write(LandingTable.events, date(2026, 3, 28), pl.DataFrame({
        "event_id": ["1"], "user_id": ["u"], "event_time": ["2026-03-28"], "event_name": ["checkout"],
        "item_id": ["i"], "value": [-1.0],
    }))  # fmt: skip
    history = pl.DataFrame({"event_id": ["1"], "user_id": ["u"], "event_time": ["never"], "event_name": ["checkout"]})
    Landing(tmp_path).write(LandingTable.events, None, history)
    problems = checked(tmp_path).problems
    assert any(
        "1 rows by the rule 'value is not below its minimum', e.g. events/date=2026-03-28/" in p for p in problems
    )
    assert not any("The history counts as arrived on" in text for text in problems)  # its day is not the reason


@pytest.mark.parametrize("content", [b"PAR1" * 9, b"PK\x03\x04" * 9, b"BZh91AY" * 9])
def test_what_is_no_text_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.csv is (a|compressed) .*, whatever its name says"):
        imported(tmp_path / "a.csv", tmp_path / "landing")


@pytest.mark.parametrize(("id_", "said"), [("null", 'empty = ["null"]'), ("1.20000E+12", "spreadsheet")])
def test_ids_that_are_none_are_noted(tmp_path: Path, id_: str, said: str) -> None:
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *LINES]).replace("s4", id_))
    imported(tmp_path / "a.csv", tmp_path / "landing")
    assert any(said in note for note in checked(tmp_path / "landing").notes)


def test_a_manifest_of_before_is_read_without_what_nothing_reads(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_text('interests_from = "given"\nname = "of before"\n')
    assert Landing(tmp_path).manifest.name == "of before"

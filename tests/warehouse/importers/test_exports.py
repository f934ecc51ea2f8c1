"""Files of exports: what was written with whatever dialect, encoding and nesting is what is read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.contracts import LandingTable
from warehouse.importers.exports import Rejected
from warehouse.importers.formats import open_export
from warehouse.importers.landing_writer import SourceError
from warehouse.importers.mapping import Mapping, MappingError
from warehouse.importers.tabular import TabularSummary, import_tables
from warehouse.ingest.read import SOURCE_FILE, SOURCE_ROW
from warehouse.landing import Landing

MEMORY = 0.25  # GiB
NAMES = ["when", "who", "sku", "note"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]


@st.composite
def dialects(draw: st.DrawFn) -> dict[str, Any]:
    quoting, escaped = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])), draw(st.booleans())
    return {
        "delimiter": draw(st.sampled_from([",", ";", "\t", "|"])),
        "lineterminator": draw(st.sampled_from(["\n", "\r\n"])),
        "quoting": csv.QUOTE_ALL if escaped else quoting,
        "doublequote": not escaped,
        "escapechar": "\\" if escaped else None,
    }


# What tells one dialect from another is in every file: a quote within, a delimiter within, letters beyond ASCII.
TELLING = 'Möbel "19" a,b;c|d\te'
CELLS = st.text(st.sampled_from("abcäß0123456789 .,;|'\"-/"), max_size=12).map(str.strip)


@settings(max_examples=25)
@given(
    dialect=dialects(), encoding=st.sampled_from(ENCODINGS), zipped=st.booleans(), cells=st.lists(CELLS, max_size=20)
)
def test_what_a_dialect_writes_is_what_is_read(
    dialect: dict[str, Any], encoding: str, zipped: bool, cells: list[str]
) -> None:
    rows = [[f"2026-03-01 10:{n:02}", f"u{n % 7}", f"s{n}", cell] for n, cell in enumerate([TELLING, *cells, TELLING])]
    text = io.StringIO()
    csv.writer(text, **dialect).writerows([NAMES, *rows])
    content = text.getvalue().encode(encoding)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / ("shop.csv.gz" if zipped else "shop.csv")
        path.write_bytes(gzip.compress(content) if zipped else content)
        copies = Path(directory) / "copies"
        copies.mkdir()
        rejected = Rejected()
        found = pl.concat(open_export(path, copies).batches(rejected))
    assert rejected.lines == {}
    assert found.select(NAMES).fill_null("").rows() == [tuple(row) for row in rows]
    assert found[SOURCE_ROW].to_list() == list(range(2, len(rows) + 2))
    assert found[SOURCE_FILE].unique().to_list() == [f"{path.name}, line"]


EVENTS = {"user_id": "who", "event_time": "when", "event_name": {"constant": "checkout"}, "item_id": "sku"}


def mapping(events: dict[str, Any] = EVENTS, **log: Any) -> Mapping:
    tables = [{"into": "events", "columns": events}]
    return Mapping.model_validate({"log": {"daily_days": 1, **log}, "table": tables})


def lines(rows: int = 60, **replaced: str) -> list[str]:
    """A header and rows of two days; ``replaced``: other text for a line, by ``line_N``."""
    every = ["when,who,sku,note", *(f"2026-03-0{1 + n % 2} 10:00,u{n % 7},s{n},note {n}" for n in range(rows))]
    for name, text in replaced.items():
        every[int(name.removeprefix("line_")) - 1] = text
    return every


def imported(tmp_path: Path, name: str, content: str | bytes, rules: Mapping | None = None) -> TabularSummary:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return import_tables([path], rules or mapping(), Landing(tmp_path / "landing"), MEMORY)


def events_of(tmp_path: Path) -> pl.DataFrame:
    landing = Landing(tmp_path / "landing")
    parts = [path for day in (None, *landing.dates()) for path in landing.files(LandingTable.events, day)]
    return pl.concat(map(pl.read_parquet, parts)).sort(SOURCE_ROW)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"line_9": "2026-03-01 10:00,u1,s1,note,more"}, "line 9: 5 fields where the header names 4"),
        ({"line_9": "2026-03-01 10:00,u1"}, "line 9: 2 fields where the header names 4"),
        ({"line_5": '2026-03-01 10:00,u1,s1,"two\nlines"', "line_9": "x"}, "line 10: 1 fields where"),
        ({"line_9": '2026-03-01 10:00,u1,s1,"a" b'}, "line 9: Value with unterminated quote found"),
    ],
)
def test_a_line_that_is_no_row_is_named_and_the_others_are_read(
    tmp_path: Path, bad: dict[str, str], sentence: str
) -> None:
    summary = imported(tmp_path, "shop.csv", "\n".join(lines(60, **bad)))
    assert summary.rows == {LandingTable.events: 59}
    [note] = summary.notes
    assert sentence in note
    found = events_of(tmp_path)
    assert "s7" not in found["item_id"].to_list()
    if "line_5" not in bad:  # then each row is a line
        assert found[SOURCE_ROW].to_list() == [number for number in range(2, 62) if number != 9]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("shop.csv", "\n".join(lines(line_9='2026-03-01,u1,s1,"note')), "line 9: a quote opens and does not close"),
        ("shop.csv", "\n".join(lines()[1:]), "line 1: '2026-03-01 10:00' is a value and not the name of a column"),
        ("shop.csv", "\n".join(f"{line},x" if n else line for n, line in enumerate(lines())), "5 fields where the"),
        ("shop.csv", "", "is empty"),
        ("shop.csv", "\n".join(lines()).encode() + "ä".encode() * 9 + b"\xe4\n", "line 61: a byte that is not UTF-8"),
        ("shop.csv.gz", gzip.compress("\n".join(lines()).encode())[:-9], "cannot be read"),
        ("shop.xlsx", "PK", "unknown format; adseq reads .csv, .tsv"),
        ("shop.parquet", "PAR1", "cannot be read"),
        ("shop.jsonl", "[1]\n" * 3, "line 1: no JSON object"),
        ("shop.csv", "\n".join(line.replace("2026-03-0", "March ") for line in lines()), "line 2: 'March 1 10:00'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_with_the_line(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    with pytest.raises(SourceError) as error:
        imported(tmp_path, name, content)
    assert sentence in str(error.value)
    assert name.removesuffix(".gz") in str(error.value)
    assert not (tmp_path / "landing").exists()


def test_text_that_is_not_unicode_is_read_as_the_mapping_says_or_as_cp1252(tmp_path: Path) -> None:
    text = "\n".join(lines(line_2="2026-03-01 10:00,ж,s0,–"))
    assert (
        imported(tmp_path, "a.csv", text.encode("cp1251"), mapping(encoding="cp1251")).notes[0].endswith("under [log]")
    )
    assert "ж" in events_of(tmp_path)["user_id"].to_list()
    (tmp_path / "landing").rename(tmp_path / "cyrillic")
    summary = imported(tmp_path, "b.csv", text.replace("ж", "é").encode("cp1252"))
    assert "was read as cp1252" in summary.notes[0]
    assert "é" in events_of(tmp_path)["user_id"].to_list()
    (tmp_path / "landing").rename(tmp_path / "western")
    with pytest.raises(ValueError, match="'latin-99' is no encoding"):
        imported(tmp_path, "b.csv", b"\xe4", mapping(encoding="latin-99"))


def test_json_lines_cost_what_is_broken_only(tmp_path: Path) -> None:
    rows = [{"when": f"2026-03-0{1 + n % 2}", "who": f"u{n}", "sku": n, "deep": {"a": [n]}} for n in range(60)]
    texts = [json.dumps(row) for row in rows]
    texts[3] = texts[3].replace('"sku": 3', '"sku": NaN')
    texts[5] = '{"when": '
    texts[30] = json.dumps(rows[30] | {"price": 2.5})
    summary = imported(
        tmp_path, "shop.jsonl", b"\xef\xbb\xbf" + "\n".join(texts).encode(), mapping(EVENTS | {"value": "price"})
    )
    assert "line 6: not JSON" in summary.notes[0]
    found = events_of(tmp_path)
    assert found["item_id"].to_list() == [None if n == 3 else str(n) for n in range(60) if n != 5]
    assert found["value"].drop_nulls().to_list() == ["2.5"]
    assert summary.unused == ("deep",)


def test_a_column_that_was_renamed_or_came_later_is_read_from_both(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("when,who,sku\n2026-03-01,u,old\n")
    (tmp_path / "b.csv").write_text("when,who,product,price\n2026-03-02,u,new,3\n")
    rules = mapping(EVENTS | {"item_id": ["product", "sku"], "value": "price"})
    summary = import_tables([tmp_path / "a.csv", tmp_path / "b.csv"], rules, Landing(tmp_path / "landing"), MEMORY)
    found = events_of(tmp_path).sort("event_time")
    assert found.select("item_id", "value").rows() == [("old", None), ("new", "3")]
    assert "a.csv has no column 'product', 'price'" in summary.notes[0]
    (tmp_path / "landing").rename(tmp_path / "both")
    with pytest.raises(MappingError, match="any of"):
        imported(tmp_path, "c.csv", "when,who\n2026-03-01,u\n", rules)


NESTED: list[dict[str, Any]] = [
    {"when": "2026-03-01", "id": "e1", "user": {"id": 7}, "items": [{"sku": "a", "cat": ["x"]}, {"sku": "b"}]},
    {"when": "2026-03-02", "id": "e2", "user": {"id": 8}, "items": [],
     "params": [{"key": "page", "value": "p"}, {"key": "query", "value": "shoes"}]},
]  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_elements_of_a_list_become_rows_and_the_rest_of_the_event_stays(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"nested.{form}"
    if form == "parquet":
        pl.DataFrame(NESTED).write_parquet(path)
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, NESTED)))
    else:
        rows = [
            {name: json.dumps(row.get(name)) for name in ("when", "id", "user", "items", "params")} for row in NESTED
        ]
        pl.DataFrame(rows).with_columns(pl.col("when", "id").str.strip_chars('"')).write_csv(path)
    rules = mapping(
        {"event_id": "id", "user_id": "user.id", "event_time": "when", "event_name": {"constant": "custom"},
         "item_id": "items[].sku", "search_string": "params[key=query].value"}
    )  # fmt: skip
    import_tables([path], rules, Landing(tmp_path / "landing"), MEMORY)
    found = events_of(tmp_path).select("event_id", "user_id", "item_id", "search_string").rows()
    assert found == [("e1-0", "7", "a", None), ("e1-1", "7", "b", None), ("e2", "8", None, "shoes")]


def test_lists_beside_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"when": "2026-03-01", "who": "u", "a": [{"x": 1}], "b": [{"y": 1}]}\n')
    rules = mapping(EVENTS | {"item_id": "a[].x", "advertiser_id": "b[].y"})
    with pytest.raises(MappingError, match=r"'a\[\].x', 'b\[\].y': these paths read elements of more than one list"):
        import_tables([tmp_path / "n.jsonl"], rules, Landing(tmp_path / "landing"), MEMORY)


def test_an_id_of_orders_or_of_purchases_only_loses_no_event(tmp_path: Path) -> None:
    """Of several rows of one order each is an event, one that is there twice is one, and one without an id has one."""
    text = [
        "when,who,what,sku,order",
        "2026-03-01 10:00,u,checkout,a,o1",
        "2026-03-01 10:00,u,checkout,b,o1",
        "2026-03-01 10:00,u,checkout,b,o1",
        "2026-03-01 11:00,u,page_visit,a,",
        "2026-03-02 11:00,u,page_visit,b,",
        "2026-03-02 12:00,u,checkout,c,o2",
    ]
    rules = mapping(EVENTS | {"event_name": "what", "event_id": "order"})
    summary = imported(tmp_path, "orders.csv", "\n".join(text), rules)
    found = events_of(tmp_path)
    assert found["event_id"].null_count() == 0
    assert found["event_id"].n_unique() == 5
    assert found["event_id"].to_list()[-1] == "o2"
    assert [note for note in summary.notes if note.startswith("3 events share their event_id with another item")]


def test_numbers_that_are_none_and_rows_that_name_nothing_are_counted(tmp_path: Path) -> None:
    text = "\n".join(lines(line_3="2026-03-01 10:00,u,,about 7")).replace("note ", "")
    tables = [
        {"into": "events", "columns": EVENTS | {"value": "note"}},
        {"into": "items", "columns": {"item_id": "sku"}},
    ]
    summary = imported(tmp_path, "s.csv", text, Mapping.model_validate({"log": {"daily_days": 1}, "table": tables}))
    assert summary.rows == {LandingTable.events: 60, LandingTable.items: 59}
    assert "1 values of value in events are no numbers, e.g. s.csv, line 3: 'about 7'" in summary.notes[0]
    assert "1 rows of the export name no item_id" in summary.notes[1]


def test_times_that_stand_for_unknown_are_told_apart_and_in_no_span(tmp_path: Path) -> None:
    text = "\n".join(lines(line_4="9999-12-31,u,s,n", line_6="1970-01-01 00:00:00,u,s,n"))
    summary = imported(tmp_path, "s.csv", text)
    assert summary.undated == 2
    assert summary.lines()[1] == "2026-03-01 to 2026-03-02"
    assert summary.days == (date(2026, 3, 2),)
    assert summary.notes[0].startswith(
        "2 events whose time cannot be read, or is before 1990 or after 2100, e.g. s.csv"
    )
    assert "line 4: '9999-12-31'" in summary.notes[0]

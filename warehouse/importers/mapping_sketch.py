"""A first ``mapping.toml`` from an export's header and a sample, for its owner to correct."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from warehouse.contracts import EMPTY_WORDS, EVENT_NAMES, LandingTable
from warehouse.importers.exports import Export, Rejected
from warehouse.importers.formats import open_export
from warehouse.importers.guessing import decimal_sign, empty_words, is_whole, level_separator, time_words
from warehouse.importers.nesting import nested_path, paths_within, with_nested
from warehouse.importers.vocabulary import NAMES, category_level, forms, meaning, plain

SAMPLE_ROWS = 5_000
EVENTS = ("event_id", "user_id", "event_time", "event_name", "item_id", "advertiser_id", "value", "currency")
ITEMS = ("item_id", "advertiser_id", "title", "category", "price", "currency")
USERS = ("user_id", "age", "gender", "country")
NEEDED = ("user_id", "event_time", "item_id")
FILLED = ("user_id", "item_id", "advertiser_id")
# Names of who visits, one of which is empty where another is not: signed in or not.
_VISITORS = ("userid", "anonymousid", "visitorid", "deviceid", "userpseudoid", "distinctid", "customerid", "clientid")
_SHOWN_VALUES = 20


@dataclass(frozen=True)
class Sketch:
    """The text of a mapping, and the columns that a log needs and the sketch did not find."""

    text: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Sample:
    """The first rows of a file."""

    name: str
    rows: pl.DataFrame  # every column as text, and every path into one

    def column(self, wanted: str) -> str | None:
        """Return the export's column that is most likely the wanted column.

        A column with values is likelier than an empty column, and a column by itself likelier than a value in a column.
        """
        order = {name: place for place, name in reversed(list(enumerate(NAMES[wanted])))}
        places = {name: [order[form] for form in forms(name) if form in order] for name in self.rows.columns}
        fitting = [name for name in self.rows.columns if places[name] and not self._is_nested(name)]
        if wanted == "event_id":
            fitting = [name for name in fitting if self._tells_rows_apart(name)]
        return min(
            fitting,
            key=lambda name: (self._is_empty(name), _depth(name), min(places[name])),
            default=None,
        )

    def columns(self, wanted: str) -> list[str]:
        """Return the most likely column, and the columns of the same meaning where the most likely column is empty."""
        first = self.column(wanted)
        if first is None or wanted not in FILLED:
            return [] if first is None else [first]
        found, empty = [first], self.rows[first].is_null()
        for name in self.rows.columns:
            alike = plain(name) in _VISITORS if wanted == "user_id" else plain(name) == plain(first)
            fills = empty & self.rows[name].is_not_null()
            if name != first and alike and not self._is_nested(name) and fills.any():
                found.append(name)
                empty &= ~fills
        return found

    def values(self, column: str) -> list[str]:
        """Return the commonest values, the commonest first."""
        counted = self.rows[column].drop_nulls().value_counts(sort=True)
        return list(counted[column].head(_SHOWN_VALUES))

    def levels(self, column: str) -> list[str]:
        """Return the columns of the category levels to which ``column`` belongs, the root first."""
        found = category_level(column)
        if found is None:
            return []
        named = [(category_level(name), name) for name in self.rows.columns if _depth(name) == _depth(column)]
        levels = sorted((each[1], name) for each, name in named if each is not None and each[0] == found[0])
        return [name for _, name in levels] if len(levels) > 1 else []

    def without_item(self, word: str) -> bool:
        """Whether no event of this name names an item or an advertiser, though others name an item."""
        name, named = self.column("event_name"), [*self.columns("item_id"), *self.columns("advertiser_id")]
        if name is None or not self.columns("item_id"):
            return False
        nothing = pl.all_horizontal(pl.col(named).is_null() | pl.col(named).is_in(EMPTY_WORDS))
        return bool(self.rows.filter(pl.col(name) == word).select(nothing.all()).item())

    def _is_nested(self, column: str) -> bool:
        first = self.rows[column].drop_nulls().head(1)
        return (
            bool(len(first))
            and first[0][:1] in ("{", "[")
            and any(each.startswith((f"{column}.", f"{column}[")) for each in self.rows.columns)
        )

    def _is_empty(self, column: str) -> bool:
        return self.rows[column].null_count() == self.rows.height

    def _tells_rows_apart(self, column: str) -> bool:
        distinct = self.rows.unique()
        return (
            self.rows.height > 0 and not distinct[column].null_count() and distinct[column].n_unique() == len(distinct)
        )


def sketch(path: Path) -> str:
    """Return the text of a mapping for ``path``, with the guessed, the missing and the unused columns.

    Raises:
        SourceError: the file's format is unknown, or the file cannot be read.
    """
    return sketch_of(path).text


def sketch_of(path: Path) -> Sketch:
    """Return a mapping for ``path``.

    Raises:
        SourceError: the file's format is unknown, or the file cannot be read.
    """
    with TemporaryDirectory(prefix="adseq-sketch-") as directory:
        sample = _sample(open_export(path, Path(directory)))
    used: set[str] = set()
    tables = [_table(sample, LandingTable.events, (*EVENTS, "search_string"), used)]
    if sample.column("item_id") and any(sample.column(name) for name in ("title", "category", "advertiser_id")):
        tables.append(_table(sample, LandingTable.items, ITEMS, used))
    if sample.column("user_id") and any(sample.column(name) for name in ("age", "gender", "country")):
        tables.append(_table(sample, LandingTable.users, USERS, used))
    missing = tuple(name for name in NEEDED if sample.column(name) is None)
    lines = [
        f"# A first mapping of {path.name}: correct it, then  adseq import csv {path} --mapping THIS --out LANDING",
        '# name = "column" of the export, a list of columns of which the first with a value counts, or a table:',
        "# column, columns, constant, default, values, unit (s, ms, us, ns, auto), format (strptime), separator (of a",
        "# category path), decimal (the sign of a number as people write it), whole_number (12.0 is 12).",
        "# docs/bring-your-own-data.md explains each.",
        *(f"# NOT FOUND: no column looks like {name}. Say below which one it is." for name in missing),
        "",
        "[log]",
        'name = "my log"',
        'time_zone = "UTC"         # of times without a zone, and of days',
        "daily_days = 3            # the last days land one by one; what is before them is the history",
        f"positive_events = {json.dumps(_positives(sample))}",
        "prediction_window_days = 28",
        "",
        *tables,
        *_not_used(sample, used),
    ]
    return Sketch("\n".join(lines), missing)


def _sample(export: Export) -> _Sample:
    """Read the first rows, with the paths into nested values beside the columns."""
    batches = export.batches(Rejected())
    rows = next(batches, pl.DataFrame()).head(SAMPLE_ROWS).select(export.names)
    rows = rows.with_columns(pl.all().str.strip_chars().replace("", None))
    inner = paths_within(rows, lambda name: any(form in names for form in forms(name) for names in NAMES.values()))
    paths = [path for path in (nested_path(name, rows.columns) for name in inner) if path is not None]
    expanded = with_nested(rows, paths)
    return _Sample(export.path.name, expanded.select(*export.names, *(path.text for path in paths)))


def _depth(name: str) -> int:
    return name.count(".") + name.count("[")


def _table(sample: _Sample, table: LandingTable, columns: Sequence[str], used: set[str]) -> str:
    lines = ["[[table]]", f'into = "{table.value}"', f"files = {json.dumps([sample.name])}", "[table.columns]"]
    for name in columns:
        columns_ = sample.columns(name)
        if not columns_:
            lines += _missing(table, name)
            continue
        column = columns_[0]
        levels = sample.levels(column) if name == "category" else []
        used |= {*columns_, *levels}
        lines.append(f"{name} = {_source(sample, name, columns_, levels)}  # {_examples(sample, column)}")
        if name == "event_time" and time_words(sample.rows[column]) is None:
            lines.append('# No known format reads these times: add format = "..." as strptime writes it.')
    return "\n".join([*lines, ""])


def _missing(table: LandingTable, name: str) -> list[str]:
    if table is LandingTable.events and name == "event_name":
        return ['event_name = {constant = "checkout"}  # no column says what happened: what is every row?']
    if table is LandingTable.events and name in ("user_id", "event_time"):
        return [f'{name} = "?"  # needed: which column is it?']
    if table is LandingTable.events and name == "item_id":
        return ['# item_id = "?"  # which column is it? Without items there is no item model.']
    return []


def _source(sample: _Sample, name: str, columns: Sequence[str], levels: Sequence[str]) -> str:
    """Return the text right of the equals sign."""
    if levels:
        return f"{{columns = {json.dumps(levels, ensure_ascii=False)}}}"
    column = sample.rows.select(pl.coalesce(columns).alias(columns[0]))[columns[0]]
    words = _words(sample, name, sample.values(columns[0]), column)
    written = json.dumps(columns[0] if len(columns) == 1 else list(columns), ensure_ascii=False)
    key = "column" if len(columns) == 1 else "any_of"
    return f"{{{key} = {written}, {', '.join(words)}}}" if words else written


def _words(sample: _Sample, name: str, values: Sequence[str], column: pl.Series) -> list[str]:
    """Return the words of a mapping about the values of a column."""
    empty = empty_words(column) if name in (*FILLED, "value", "price") else []
    if empty:
        without = _words(sample, name, values, column.replace(dict.fromkeys(empty)))
        return [*without, f"empty = {json.dumps(empty)}"]
    if name == "event_name":
        named = {word: _named(sample, word) for word in values if word not in EVENT_NAMES}
        known = ", ".join(
            f"{json.dumps(word, ensure_ascii=False)} = {json.dumps(named[word])}"
            for word in sorted(named, key=lambda word: meaning(word) is None)
        )
        return [f"values = {{{known}}}"] if known else []
    if name == "event_time":
        return time_words(column) or []
    if name == "category":
        separator = level_separator(values)
        return [f"separator = {json.dumps(separator)}"] if separator else []
    if name in ("value", "price"):
        sign = decimal_sign(column)
        return [f"decimal = {json.dumps(sign)}"] if sign else []
    if name in ("user_id", "item_id", "advertiser_id") and is_whole(column):
        return ["whole_number = true"]
    return []


def _named(sample: _Sample, word: str) -> str:
    """Return the contract's event name for an export's word. A visit without an item (a home page) is ``custom``."""
    name = meaning(word) or "custom"
    return "custom" if name == "page_visit" and sample.without_item(word) else name


def _not_used(sample: _Sample, used: Iterable[str]) -> list[str]:
    roots = {name.split(".")[0].split("[")[0] for name in used}
    spare = [name for name in sample.rows.columns if not _depth(name) and name not in {*used, *roots}]
    if not spare:
        return []
    return ["# Not used:", *(f"#   {name}: {_examples(sample, name)}{_why(sample, name)}" for name in spare), ""]


def _why(sample: _Sample, name: str) -> str:
    if plain(name) not in NAMES["event_id"] or sample.column("event_id") is not None:
        return ""
    return " (no event id: it is empty in a row, or the same in rows that differ)"


def _positives(sample: _Sample) -> list[str]:
    column = sample.column("event_name")
    if column is None:
        return ["checkout"]
    found = {word if word in EVENT_NAMES else meaning(word) for word in sample.values(column)}
    return [name for name in ("checkout", "add_to_cart", "signup") if name in found] or ["checkout"]


def _examples(sample: _Sample, column: str) -> str:
    shown = ", ".join(" ".join(value[:30].split()) for value in sample.values(column)[:3])
    return f"e.g. {shown}" if shown else "empty in the first rows"

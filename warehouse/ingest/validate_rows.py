"""The rows of an arrival that keep their table's contract, and the rule that each other row breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl

from warehouse.contracts import MAXIMUM_ID_BYTES, SCHEMAS, LandingTable
from warehouse.identity import UserKeys
from warehouse.ingest.read import LOST, ROW, SOURCE_FILE, SOURCE_ROW, UNREADABLE, Arrival, json_rows

AFTER_ARRIVAL = "is not after its arrival day"
NOT_AFTER_ARRIVAL = f"event_time {AFTER_ARRIVAL}"
HAPPENED = {
    LandingTable.events: "event_time",
    LandingTable.relevance_labels: "labelled_at",
    LandingTable.funnel_sample: "sampled_at",
    LandingTable.feedback: "given_at",
}
"""The times that no row may have after its arrival; a label of the future would end all training until then."""
USER = "user_id"
# ``user_id``: the key of whom a row is about, so that it can be forgotten, too; null where it names nobody.
QUARANTINE_SCHEMA = {
    "file": pl.String,
    "row": pl.Int64,
    "reason": pl.String,
    "user_id": pl.String,
    "content": pl.String,
}
_RULE_TEXTS = {
    "nullability": "is not null",
    "min_length": "is not empty",
    "max_length": f"has at most {MAXIMUM_ID_BYTES} bytes",
    "min": "is not below its minimum",
    "min_exclusive": "is above its minimum",
    "max": "is not above its maximum",
    "nan": "is not NaN",
    "inf": "is finite",
}


@dataclass(frozen=True)
class Rules:
    """The rules for the rows of an arrival beside their table's contract, and the names in messages about the rows.

    Attributes:
        table: the table whose contract the rows have to keep.
        latest: no event happens after this moment.
        width: numbers in the embeddings of items; None where no width is known.
        root: the landing zone: messages name files from there.
        keys: the keys of users in quarantined rows.
    """

    table: LandingTable
    latest: datetime
    width: int | None
    root: Path
    keys: UserKeys


@dataclass(frozen=True)
class LostNumber:
    """An optional number that cannot be read: its row is accepted without the number.

    Attributes:
        column: the column of the number.
        rows: the number of such rows.
        place: the place of the first such row.
        text: the text of the first such number.
    """

    column: str
    rows: int
    place: str
    text: str


@dataclass(frozen=True)
class Judged:
    """Rows of a file: those that keep the contract, as the contract has them, and those that do not.

    Attributes:
        rows: how many there were.
        accepted: contract columns.
        rejected: ``QUARANTINE_SCHEMA``, ``rule``, the first rule that the row breaks, and ``place``, where the row is:
            in the file that was imported, if it was, else in the landing file.
        ignored_columns: columns that the contract does not know.
        lost: the numbers that accepted rows go without.
    """

    rows: int
    accepted: pl.DataFrame
    rejected: pl.DataFrame
    ignored_columns: tuple[str, ...]
    lost: tuple[LostNumber, ...]


def embedding_width(files: Iterable[Iterable[Arrival]]) -> int | None:
    """Return how many numbers most embeddings of an arrival's files have; None without embeddings.

    Of equally frequent widths the smaller one counts.
    """
    counted: Counter[int] = Counter()
    for arrival in (arrival for file in files for arrival in takewhile(_has_embeddings, file)):
        counted.update(dict(arrival.typed["embedding"].list.len().drop_nulls().value_counts().iter_rows()))
    return min(counted, key=lambda width: (-counted[width], width)) if counted else None


def _has_embeddings(arrival: Arrival) -> bool:
    return "embedding" in arrival.raw.columns  # a file that has none is not read further


def judge(arrival: Arrival, rules: Rules) -> Judged:
    """Split rows of a file into the rows that keep the contract and the rows that break it, with the broken rules."""
    typed = arrival.typed
    broken = _broken_rules(typed.drop(UNREADABLE, LOST), rules.table)
    judged = typed.select(ROW, UNREADABLE, _beyond_the_row(rules).alias("beyond"))
    suspect = judged.filter(
        pl.any_horizontal(pl.col(UNREADABLE, "beyond").is_not_null(), pl.col(ROW).is_in(broken[ROW].implode()))
    )
    reasons = suspect.join(broken, on=ROW, how="left", maintain_order="left").select(
        ROW, reason=pl.concat_str(UNREADABLE, "rules", "beyond", separator="; ", ignore_nulls=True)
    )
    bad = typed[ROW].is_in(reasons[ROW].implode())
    raw, about = arrival.raw.filter(bad), pl.Series(USER, [None] * len(reasons), dtype=pl.String)
    if USER in typed.columns:
        about = rules.keys.keys(typed[USER].filter(bad)).alias(USER)
        raw = raw.with_columns(about)  # the file still says who it is
    file = arrival.path.relative_to(rules.root).as_posix()
    rejected = reasons.select(
        pl.lit(file).alias("file"),
        pl.col(ROW),
        pl.col("reason"),
        about,
        json_rows(raw) if len(raw) else pl.lit("").alias("content"),
        pl.col("reason").str.split("; ").list.first().alias("rule"),
        _places(arrival, file, bad),
    )
    kept = typed.drop(ROW, UNREADABLE, LOST)
    accepted = kept.filter(~bad) if len(reasons) else kept
    return Judged(typed.height, accepted, rejected, arrival.ignored_columns, _lost(arrival, ~bad, file))


def _places(arrival: Arrival, file: str, chosen: pl.Series) -> pl.Series:
    """Return the places of the chosen rows, for people."""
    landed = arrival.typed.filter(chosen).select(pl.format("{}, row {}", pl.lit(file), ROW).alias("place"))["place"]
    if not {SOURCE_FILE, SOURCE_ROW} <= set(arrival.raw.columns):
        return landed
    imported = pl.format("{} {}", pl.col(SOURCE_FILE).cast(pl.String), pl.col(SOURCE_ROW).cast(pl.String))
    return arrival.raw.filter(chosen).select(pl.coalesce(imported, landed).alias("place"))["place"]


def _lost(arrival: Arrival, accepted: pl.Series, file: str) -> tuple[LostNumber, ...]:
    """Return the numbers that accepted rows lost, by column."""
    names = arrival.typed[LOST].filter(accepted).explode().drop_nulls().unique().sort()
    found = []
    for name in names:
        lost = accepted & arrival.typed[LOST].list.contains(name)
        text = str(arrival.raw[name].filter(lost)[0])
        found.append(LostNumber(name, int(lost.sum()), _places(arrival, file, lost)[0], text))
    return tuple(found)


def _beyond_the_row(rules: Rules) -> pl.Expr:
    """Return the rule that a row breaks by other known values (the latest time, the width); null for no rule."""
    if (time := HAPPENED.get(rules.table)) is not None:
        return pl.when(pl.col(time) > rules.latest).then(pl.lit(f"{time} {AFTER_ARRIVAL}"))
    if rules.table is LandingTable.items and rules.width is not None:
        rule = pl.lit(f"embedding has {rules.width} numbers, as the others have")
        return pl.when(pl.col("embedding").list.len() != rules.width).then(rule)
    return pl.lit(None, dtype=pl.String)


def _broken_rules(frame: pl.DataFrame, table: LandingTable) -> pl.DataFrame:
    """Return ``row`` and ``rules`` (the broken rules in words, joined by ``; ``) of the rows that break the schema."""
    schema = _numbered_schema(table)
    _, failure = schema.filter(frame)
    details = failure.details()
    rules = [name for name in details.columns if name not in frame.columns]
    words = [pl.when(pl.col(rule) == "invalid").then(pl.lit(_in_words(rule, table))).alias(rule) for rule in rules]
    return details.select(ROW, pl.concat_str(words, separator="; ", ignore_nulls=True).alias("rules"))


@cache
def _numbered_schema(table: LandingTable) -> type[dy.Schema]:
    """Return the table's schema plus the row number, which the validation would otherwise drop."""
    schema: Any = SCHEMAS[table]
    numbered: type[dy.Schema] = type(schema)(f"Numbered{schema.__name__}", (schema,), {ROW: dy.Int64(nullable=False)})
    return numbered


def _in_words(rule: str, table: LandingTable) -> str:
    """Return a rule in words: ``user_id|nullability`` is ``user_id is not null``.

    ``event_name_is_known`` is ``event_name is known``.
    """
    column, separator, kind = rule.partition("|")
    if separator and kind.startswith("inner_"):
        known = (text for name, text in _RULE_TEXTS.items() if kind.endswith(f"_{name}"))
        return f"each value in {column} {next(known, 'keeps the rule ' + kind)}"
    if separator:
        return f"{column} {_RULE_TEXTS.get(kind, 'keeps the rule ' + kind)}"
    text = rule.replace("_", " ")
    for name in pl.Schema(SCHEMAS[table]):
        text = text.replace(name.replace("_", " "), name)
    return text

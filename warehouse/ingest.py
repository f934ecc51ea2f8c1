"""Landing files -> validated Delta tables: one arrival day of one table at a time.

Rows that break a contract go to ``quarantine_<table>`` with the rule that they break; duplicates are dropped, the
earliest kept; the partition is written last, in one commit, so that whatever goes wrong leaves the previous one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

import dataframely as dy
import polars as pl

from settings import DataSettings
from warehouse.contracts import KEYS, MAXIMUM_ID_BYTES, SCHEMAS, LandingTable
from warehouse.forgetting import forgotten_users
from warehouse.identity import UserKeys, record_identities
from warehouse.landing import Landing
from warehouse.reading import ROW, UNREADABLE, Arrival, LandingError, json_rows, read_arrival
from warehouse.tables import Tables

NOT_AFTER_ARRIVAL = "event_time is not after its arrival day"
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
    "max": "is not above its maximum",
    "nan": "is not NaN",
    "inf": "is finite",
}
USER = "user_id"
PERSONAL = {USER, "search_string", "query"}
_EXAMPLE_CHARACTERS = 600


class QuarantineExceeded(RuntimeError):
    """Too large a share of an arrival's rows breaks the contract; its partition was not written."""


@dataclass(frozen=True)
class IngestReport:
    """What became of one arrival day of one table.

    Attributes:
        rows_read: rows in all files.
        rows_written: rows in the partition.
        duplicates: rows whose key had been read already, in this arrival or (events) in an earlier one.
        quarantined: rows by the first rule that each breaks; the values add up to the rows quarantined.
        late: events that happened on a day before they arrived.
        forgotten: rows of users who were forgotten; they are in no table.
        files: number of files.
        ignored_columns: columns that the contract does not know, sorted.
        seconds: wall-clock time.
    """

    rows_read: int
    rows_written: int
    duplicates: int
    quarantined: dict[str, int]
    late: int
    forgotten: int
    files: int
    ignored_columns: tuple[str, ...]
    seconds: float

    @property
    def rows_quarantined(self) -> int:
        return sum(self.quarantined.values())

    @property
    def quarantine_share(self) -> float:
        """Quarantined over read rows; 0 where nothing was read."""
        return self.rows_quarantined / self.rows_read if self.rows_read else 0.0


def day_end(day: date, time_zone: str) -> datetime:
    """The first moment after ``day`` in ``time_zone``, in UTC."""
    midnight = datetime.combine(day + timedelta(days=1), time.min, tzinfo=ZoneInfo(time_zone))
    return midnight.astimezone(UTC)


def ingest(
    landing: Landing, tables: Tables, table: LandingTable, day: date | None, settings: DataSettings
) -> IngestReport:
    """Replace one arrival day's partition of ``table`` by what its landing folder holds.

    Args:
        landing: the landing zone; its manifest names the time zone of days.
        tables: where the data and ``quarantine_<table>`` partitions go.
        table: which landing table.
        day: the arrival day, or None for the history, which counts as arrived on ``landing.history_day()``.
        settings: quarantine share and tolerance for events after their arrival day.

    A folder that is missing or empty leaves an empty partition. Days may be ingested again, and in any order as long
    as the events that arrived before them are there.

    Raises:
        LandingError: a file cannot be read, or the landing zone has a history but no daily folder.
        QuarantineExceeded: the quarantine table is written, the data partition is not.
    """
    started = perf_counter()
    arrival_day, time_zone = day_of_arrival(landing, day), landing.manifest.time_zone
    partition = {"arrival_date": arrival_day}
    keys, buried = UserKeys.of(tables, landing), forgotten_users(tables)
    latest = day_end(arrival_day, time_zone) + timedelta(hours=settings.future_tolerance_hours)

    files = landing.files(table, day)
    arrivals = [read_arrival(path, table) for path in files]
    width = known_embedding_width(tables) or embedding_width(arrivals) if table is LandingTable.items else None
    checked = [check_arrival(arrival, table, latest, landing.root, keys, width) for arrival in arrivals]
    found = pl.concat([part.rejected for part in checked]) if checked else _nothing_rejected()
    rejected = found.filter(~pl.col(USER).is_in(buried.implode()).fill_null(False))
    rows_read = sum(part.rows for part in checked)
    tables.write(f"quarantine_{table.value}", rejected.drop("rule"), partition)
    _stop_if_too_many(rejected, rows_read, table, arrival_day, settings)

    accepted = pl.concat([pl.DataFrame(schema=pl.Schema(SCHEMAS[table])), *[part.accepted for part in checked]])
    forgotten = found.height - rejected.height
    if USER in accepted.columns:
        named = accepted.with_columns(keys.keys(accepted[USER]).alias(USER), external_id=USER)
        kept = named.filter(~pl.col(USER).is_in(buried.implode()))
        record_identities(tables, table.value, arrival_day, kept.select(USER, "external_id"))
        accepted, forgotten = kept.drop("external_id"), forgotten + named.height - kept.height
    frame = _without_duplicates(accepted, table)
    if table is LandingTable.events:
        frame = _without_earlier_arrivals(frame, tables, arrival_day)
        today = pl.lit(day is not None) & (pl.col("event_time") < day_end(arrival_day - timedelta(days=1), time_zone))
        frame = frame.with_columns(today.alias("late")).sort("user_id", "event_time", "event_id")
    tables.write(table.value, frame, partition)
    return IngestReport(
        rows_read=rows_read,
        rows_written=frame.height,
        duplicates=accepted.height - frame.height,
        quarantined=dict(rejected.group_by("rule").len().sort("len", "rule", descending=[True, False]).iter_rows()),
        late=int(frame["late"].sum()) if table is LandingTable.events else 0,
        forgotten=forgotten,
        files=len(files),
        ignored_columns=tuple(sorted({column for part in checked for column in part.ignored_columns})),
        seconds=perf_counter() - started,
    )


@dataclass(frozen=True)
class Checked:
    """One file's rows, judged."""

    rows: int
    accepted: pl.DataFrame
    rejected: pl.DataFrame
    ignored_columns: tuple[str, ...]


def day_of_arrival(landing: Landing, day: date | None) -> date:
    """The day that an arrival counts as: itself, and the one before the first daily folder for the history (None).

    Raises:
        LandingError: there is no daily folder.
    """
    arrival_day = landing.history_day() if day is None else day
    if arrival_day is None:
        raise LandingError(
            f"{landing.root}: the history counts as arrived on the day before the first daily folder, and there is no "
            "folder named date=YYYY-MM-DD in any table. Put the newest day's rows into one, "
            "e.g. events/date=2026-01-31/."
        )
    return arrival_day


def known_embedding_width(tables: Tables) -> int | None:
    """How many numbers the embeddings of the catalogue have; None while it has none."""
    if not tables.exists(LandingTable.items.value):
        return None
    known = tables.scan(LandingTable.items.value).select(pl.col("embedding").list.len()).drop_nulls().head(1).collect()
    return int(known.item()) if len(known) else None


def embedding_width(arrivals: Sequence[Arrival]) -> int | None:
    """How many numbers most embeddings of an arrival have, of equally many the fewer; None where it has none."""
    lengths = [arrival.typed["embedding"].list.len().drop_nulls() for arrival in arrivals]
    counted = pl.concat(lengths).alias("width").value_counts() if lengths else pl.DataFrame()
    return int(counted.sort("count", "width", descending=[True, False])["width"][0]) if len(counted) else None


def check_arrival(
    arrival: Arrival,
    table: LandingTable,
    latest: datetime,
    root: Path,
    keys: UserKeys,
    width: int | None = None,
) -> Checked:
    """Split a file's rows into those that keep the contract and those that break it, with the rules they break.

    Args:
        latest: no event happens after it. width: of the embeddings of items; None where nothing is known.
    """
    typed = arrival.typed
    broken = _broken_rules(typed.drop(UNREADABLE), table)
    judged = (
        typed.select(ROW, UNREADABLE, _beyond_the_row(table, latest, width).alias("beyond"))
        .join(broken, on=ROW, how="left", maintain_order="left")
        .select(ROW, reason=pl.concat_str(UNREADABLE, "rules", "beyond", separator="; ", ignore_nulls=True))
        .with_columns(pl.col("reason").replace("", None))
    )
    bad = judged["reason"].is_not_null()
    raw, about = arrival.raw.filter(bad), pl.Series(USER, [None] * int(bad.sum()), dtype=pl.String)
    if USER in typed.columns:
        about = keys.keys(typed[USER].filter(bad)).alias(USER)
        raw = raw.with_columns(about)  # the file still says who it is
    rejected = judged.filter(bad).select(
        pl.lit(arrival.path.relative_to(root).as_posix()).alias("file"),
        pl.col(ROW),
        pl.col("reason"),
        about,
        json_rows(raw) if bad.any() else pl.lit("").alias("content"),
        pl.col("reason").str.split("; ").list.first().alias("rule"),
    )
    accepted = typed.filter(~bad).drop(ROW, UNREADABLE) if bad.any() else typed.drop(ROW, UNREADABLE)
    return Checked(typed.height, accepted, rejected, arrival.ignored_columns)


def _beyond_the_row(table: LandingTable, latest: datetime, width: int | None) -> pl.Expr:
    """The rule that a row breaks by what else is known; null where it breaks none."""
    if table is LandingTable.events:
        return pl.when(pl.col("event_time") > latest).then(pl.lit(NOT_AFTER_ARRIVAL))
    if table is LandingTable.items and width is not None:
        rule = pl.lit(f"embedding has {width} numbers, as the others have")
        return pl.when(pl.col("embedding").list.len() != width).then(rule)
    return pl.lit(None, dtype=pl.String)


def _broken_rules(frame: pl.DataFrame, table: LandingTable) -> pl.DataFrame:
    """``row`` and ``rules`` (the broken rules in words, joined by ``; ``) of the rows that break the schema."""
    schema = _numbered_schema(table)
    _, failure = schema.filter(frame)
    details = failure.details()
    rules = [name for name in details.columns if name not in frame.columns]
    words = [pl.when(pl.col(rule) == "invalid").then(pl.lit(_in_words(rule, table))).alias(rule) for rule in rules]
    return details.select(ROW, pl.concat_str(words, separator="; ", ignore_nulls=True).alias("rules"))


@cache
def _numbered_schema(table: LandingTable) -> type[dy.Schema]:
    """The table's schema plus the row number, which the validation would otherwise drop."""
    schema: Any = SCHEMAS[table]
    numbered: type[dy.Schema] = type(schema)(f"Numbered{schema.__name__}", (schema,), {ROW: dy.Int64(nullable=False)})
    return numbered


def _in_words(rule: str, table: LandingTable) -> str:
    """``user_id|nullability`` -> ``user_id is not null``; ``event_name_is_known`` -> ``event_name is known``."""
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


def _nothing_rejected() -> pl.DataFrame:
    return pl.DataFrame(schema={**QUARANTINE_SCHEMA, "rule": pl.String})


def _stop_if_too_many(
    rejected: pl.DataFrame, rows_read: int, table: LandingTable, arrival_day: date, settings: DataSettings
) -> None:
    if not rows_read or rejected.height / rows_read <= settings.maximum_quarantine_share:
        return
    worst = rejected.group_by("file", "rule").len().sort("len", "file", "rule", descending=[True, False, False])
    file, rule, count = worst.row(0)
    example = rejected.filter((pl.col("file") == file) & (pl.col("rule") == rule)).row(0, named=True)
    raise QuarantineExceeded(
        f"{file}: {count:,} rows break the rule '{rule}'. Together {rejected.height:,} of {rows_read:,} rows of "
        f"{table.value} that arrived on {arrival_day} are quarantined, {rejected.height / rows_read:.1%} against a "
        f"maximum of {settings.maximum_quarantine_share:.1%}. Example, row {example['row']}: "
        f"{_shown(example)}. Every such row is in table quarantine_{table.value}; correct the "
        "export and run the day again, or raise ADSEQ_DATA__MAXIMUM_QUARANTINE_SHARE. The day's previous rows stay."
    )


def _shown(example: Mapping[str, Any]) -> str:
    """A row's content for a message, which is kept where nobody looks for users: only what the contract knows, and
    without what says who did what."""
    known = {name for schema in SCHEMAS.values() for name in pl.Schema(schema)} - PERSONAL
    content = {name: value for name, value in json.loads(example["content"]).items() if name in known}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))[:_EXAMPLE_CHARACTERS]


def _without_duplicates(frame: pl.DataFrame, table: LandingTable) -> pl.DataFrame:
    """One row a key: of events the earliest, of rows at one time (and of other tables) the first read."""
    key = list(KEYS[table])
    if frame.select(key).n_unique() == frame.height:
        return frame
    if table is LandingTable.events:
        frame = frame.sort("event_time", maintain_order=True)
    return frame.unique(key, keep="first", maintain_order=True)


def _without_earlier_arrivals(events: pl.DataFrame, tables: Tables, arrival_day: date) -> pl.DataFrame:
    """Drop the events whose id arrived on an earlier day: the earliest arrival stays."""
    if not tables.exists("events") or events.is_empty():
        return events
    earlier = tables.scan("events").filter(pl.col("arrival_date") < arrival_day).select("event_id")
    seen = earlier.join(events.select("event_id").lazy(), on="event_id", how="semi").collect(engine="streaming")
    return events.join(seen, on="event_id", how="anti", maintain_order="left")

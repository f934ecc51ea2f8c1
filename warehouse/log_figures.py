"""Findings from the good rows of a landing zone together: after deduplication, across tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from settings import UNKNOWN_ADVERTISER
from warehouse.contracts import EMPTY_WORDS, KEYS, SCHEMAS, LandingTable
from warehouse.spill import Staging
from warehouse.trainability import LOG

IN_HISTORY = "in_history"
_MANY_USERS = 20  # of fewer one may well have many of the events
_LARGE_USER, _THIN_USERS, _UNKNOWN_ITEMS = 0.1, 0.5, 0.5  # shares beyond which there is a note
_WORTH_A_CHECK = 0.99
_COLUMNS = {
    LandingTable.events: (
        *KEYS[LandingTable.events],
        "event_name",
        "event_time",
        "user_id",
        "item_id",
        "advertiser_id",
    ),
    LandingTable.items: ("item_id", "advertiser_id"),
    LandingTable.users: ("user_id",),
    LandingTable.ads: ("ad_id", "item_id"),
    LandingTable.impressions: KEYS[LandingTable.impressions],
    LandingTable.relevance_labels: KEYS[LandingTable.relevance_labels],
    LandingTable.funnel_sample: KEYS[LandingTable.funnel_sample],
    LandingTable.feedback: KEYS[LandingTable.feedback],
}


@dataclass(frozen=True)
class LogFigures:
    """Figures of the deduplicated events, and notes on how the other tables fit them.

    Attributes:
        first_day, last_day: of the events, in the log's time zone; None without events.
        by_name: events, the commonest name first.
        notes: oddities, a sentence each.
    """

    first_day: str | None
    last_day: str | None
    by_name: dict[str, int]
    notes: tuple[str, ...]


def stage_columns(staged: Staging, table: LandingTable, rows: pl.DataFrame, *, in_history: bool) -> None:
    """Stage the needed columns of a table's good rows, under the table's name; of users a hash and not their ids."""
    kept = rows.select(list(dict.fromkeys(_COLUMNS[table])))
    if "user_id" in kept.columns:
        kept = kept.with_columns(pl.col("user_id").hash().cast(pl.String))
    staged.add(table.value, kept.with_columns(pl.lit(in_history).alias(IN_HISTORY)))


def stage_nothing(staged: Staging, table: LandingTable) -> None:
    """Stage a table's columns without rows."""
    stage_columns(staged, table, pl.DataFrame(schema=pl.Schema(SCHEMAS[table])), in_history=False)


def repeated_rows(staged: Staging, table: LandingTable) -> int:
    """Return how many staged rows repeat the key of another row."""
    key = ", ".join(KEYS[table])
    [(rows, keys)] = staged.rows(
        f"SELECT (SELECT count(*) FROM {table.value}), "
        f"(SELECT count(*) FROM (SELECT DISTINCT {key} FROM {table.value}))"
    )
    return int(rows - keys)


def log_figures(staged: Staging, time_zone: str) -> LogFigures:
    """Return findings from the staged tables together. Stage ``LOG``."""
    key = ", ".join(KEYS[LandingTable.events])
    staged.execute(
        f"CREATE TABLE {LOG} AS "
        f"SELECT user_id, event_name, event_time, item_id, advertiser_id, {IN_HISTORY} FROM events "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY NOT {IN_HISTORY}, event_time) = 1"
    )
    local = f"(event_time AT TIME ZONE '{time_zone}')::DATE"
    [(first, last)] = staged.rows(f"SELECT min({local})::TEXT, max({local})::TEXT FROM {LOG}")
    by_name = dict(staged.rows(f"SELECT event_name, count(*) AS n FROM {LOG} GROUP BY 1 ORDER BY n DESC, 1"))
    notes = [*_of_users(staged), *_of_ids(staged), _of_catalogue(staged), _of_advertisers(staged), _of_ads(staged)]
    return LogFigures(first, last, by_name, tuple(note for note in notes if note))


def _of_users(staged: Staging) -> list[str | None]:
    staged.execute(f"CREATE TABLE by_user AS SELECT user_id, count(*) AS n FROM {LOG} GROUP BY 1")
    [(users, events, largest, single)] = staged.rows(
        "SELECT count(*), coalesce(sum(n), 0), coalesce(max(n), 0), count(*) FILTER (WHERE n = 1) FROM by_user"
    )
    [(listed, known)] = staged.rows(
        "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM by_user SEMI JOIN users USING (user_id))"
    )
    if users < _MANY_USERS:
        return []
    return [
        f"one user has {largest:,} of the events, {largest / events:.0%}: a bot, or an id that stands for nobody in "
        "particular? Leave such a user out of the export"
        if largest > _LARGE_USER * events
        else None,
        f"{single:,} of {users:,} users have one event: is user_id the id of a session or an order? It has to be the "
        "same at every visit"
        if single >= _WORTH_A_CHECK * users
        else None,
        f"users has {known:,} of the {users:,} users with events: the others go without demographics"
        if listed and known < _THIN_USERS * users
        else None,
    ]


def _of_ids(staged: Staging) -> Iterator[str]:
    """Yield findings on the ids of items."""
    words = ", ".join(f"'{word}'" for word in EMPTY_WORDS)
    [(events, example)] = staged.rows(f"SELECT count(*), min(item_id) FROM {LOG} WHERE item_id IN ({words})")
    if events:
        yield (
            f"{events:,} events name the item {example!r}: a word for no item? In a mapping, "
            f'empty = ["{example}"] reads it as nothing'
        )
    [(events, example)] = staged.rows(
        f"SELECT count(*), min(item_id) FROM {LOG} WHERE regexp_full_match(item_id, '[0-9][.,][0-9]+[eE][+][0-9]+')"
    )
    if events:
        yield (
            f"{events:,} events name an item like {example!r}: a spreadsheet has shortened the ids, so that several "
            "items have one. Export them as text"
        )


def _of_catalogue(staged: Staging) -> str | None:
    [(listed, named, known, example)] = staged.rows(
        f"SELECT (SELECT count(*) FROM items), count(item_id), count(item_id) FILTER (WHERE item_id IN "
        f"(SELECT item_id FROM items)), "
        f"min(item_id) FILTER (WHERE item_id NOT IN (SELECT item_id FROM items)) FROM {LOG}"
    )
    if not listed or not named or known > _UNKNOWN_ITEMS * named:
        return None
    [(catalogue,)] = staged.rows("SELECT min(item_id) FROM items")
    advice = f"Events say {example!r}, the catalogue {catalogue!r}: are these ids of one kind?"
    if example.endswith(".0"):
        advice += " In a mapping, whole_number = true makes 12.0 to 12."
    if not known:
        return f"no event names an item of the catalogue. {advice}"
    return f"{known:,} of {named:,} events with an item ({known / named:.0%}) name one of the catalogue. {advice}"


def _of_advertisers(staged: Staging) -> str | None:
    [(named, known)] = staged.rows(
        f"SELECT count(*), count(*) FILTER (WHERE advertiser_id <> '{UNKNOWN_ADVERTISER}') FROM "
        f"(SELECT advertiser_id FROM {LOG} UNION ALL SELECT advertiser_id FROM items) WHERE advertiser_id IS NOT NULL"
    )
    if not named or known:
        return None
    return f"every advertiser is {UNKNOWN_ADVERTISER!r}: there is no other one to predict"


def _of_ads(staged: Staging) -> str | None:
    named = f"SELECT item_id FROM items UNION SELECT item_id FROM {LOG} WHERE item_id IS NOT NULL"
    [(ads, unknown, example)] = staged.rows(
        "SELECT (SELECT count(DISTINCT ad_id) FROM ads), count(DISTINCT ad_id), min(item_id) "
        f"FROM ads WHERE item_id NOT IN ({named})"
    )
    if not unknown:
        return None
    return (
        f"{unknown:,} of {ads:,} ads are of an item that neither the catalogue nor an event names, e.g. {example!r}: "
        "such an ad is never shown"
    )

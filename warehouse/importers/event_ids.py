"""Ids of events for exports that give no ids, give ids to some events only, or give one id to several events."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from warehouse.contracts import KEYS, LandingTable
from warehouse.importers.nesting import ELEMENT
from warehouse.spill import Staging

_EVENTS = LandingTable.events.value
_SAYS = ("event_name", "item_id", "event_time")


def content_id(names: Sequence[str]) -> pl.Expr:
    """Return 128 bits of the content of a row: an event is there twice where its row is there twice."""
    return _hashed([*names, ELEMENT])


def given_or_content_id(given: pl.Expr, names: Sequence[str]) -> pl.Expr:
    """Return the given id (for an element of a list, with the element's number); without an id the ``content_id``."""
    of_element = pl.when(pl.col(ELEMENT).is_null()).then(given).otherwise(pl.format("{}-{}", given, pl.col(ELEMENT)))
    return pl.coalesce(of_element, content_id(names))


def with_distinct_ids(pieces: Staging, sequence: str) -> tuple[str, list[str]]:
    """Tell staged events apart that share a key and differ in name or item: the id is the id of an order or a session.

    Args:
        sequence: the column that numbers the staged rows.

    Returns:
        The name under which the events are staged now, and sentences about the changed ids.
    """
    there = pieces.scan(_EVENTS).collect_schema().names()
    key = ", ".join(KEYS[LandingTable.events])
    says = " || '\x1f' || ".join(f"coalesce({name}, '')" for name in ("event_name", "item_id") if name in there)
    pieces.execute(
        f"CREATE TABLE shared_ids AS SELECT {key} FROM {_EVENTS} GROUP BY ALL HAVING min({says}) <> max({says})"
    )
    pieces.execute(f"CREATE TABLE shared_rows AS SELECT {sequence} FROM {_EVENTS} SEMI JOIN shared_ids USING ({key})")
    [(rows,)] = pieces.rows("SELECT count(*) FROM shared_rows")
    if not rows:
        return _EVENTS, []
    name = f"{_EVENTS}_apart"
    apart = pl.format("{}-{}", pl.col("event_id"), _hashed([each for each in _SAYS if each in there]))
    for piece in pieces.pieces(_EVENTS):
        shared = pieces.within("shared_rows", sequence, piece)
        of_shared = pl.col(sequence).is_in(shared.implode())
        pieces.add(name, piece.with_columns(pl.when(of_shared).then(apart).otherwise("event_id").alias("event_id")))
    note = (
        f"{rows:,} events share their event_id with another item or event_name, as events of one order or session do: "
        "each has an id of its own now"
    )
    return name, [note]


def _hashed(names: Sequence[str]) -> pl.Expr:
    row = pl.struct(names)
    return pl.format("{}{}", *(row.hash(seed).cast(pl.String).str.zfill(20) for seed in (0, 1)))

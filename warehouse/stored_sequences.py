"""Table ``user_sequences``: a day's sequences, the shape that each was cut to, and whether onsite events are in them.

A model owns the shape of its sequences: the length and the look-back that it was trained with. The table holds the
sequences of the model that served the day. For a model of another shape they are computed anew.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from settings import SequenceSettings
from warehouse.landing import Landing
from warehouse.sequences import SEQUENCE_SCHEMA, sequence_batches, user_sequences
from warehouse.tables import Tables

TABLE = "user_sequences"
MAXIMUM_LENGTH, LOOKBACK_DAYS = "maximum_length", "lookback_days"
ONSITE = "onsite_events"
SHAPE_SCHEMA = {MAXIMUM_LENGTH: pl.Int32(), LOOKBACK_DAYS: pl.Int32(), ONSITE: pl.Boolean()}


def write_sequences(tables: Tables, landing: Landing, day: date, *, shape: SequenceSettings, memory_gib: float) -> None:
    """Write the sequences of the users who were active on ``day``; the sequences need not fit into memory."""
    onsite = landing.manifest.onsite_events
    cut = {MAXIMUM_LENGTH: shape.length, LOOKBACK_DAYS: shape.lookback_days, ONSITE: onsite}
    columns = [pl.lit(value, SHAPE_SCHEMA[name]).alias(name) for name, value in cut.items()]
    batches = (
        batch.with_columns(columns)
        for batch in sequence_batches(tables, landing, [day], settings=shape, memory_gib=memory_gib)
    )
    tables.write_batches(TABLE, pl.Schema({**SEQUENCE_SCHEMA, **SHAPE_SCHEMA}), batches, {"day": day})


def sequences_of_day(
    tables: Tables, landing: Landing, day: date, *, shape: SequenceSettings, memory_gib: float
) -> pl.DataFrame:
    """Return the sequences of the users who were active on ``day``, as ``user_sequences`` does.

    The sequences come from the table if the table has the day in this ``shape``, and with onsite events if the manifest
    says so now.
    """
    if day in tables.days(TABLE, "day"):
        stored = tables.read(TABLE, {"day": day})
        onsite = landing.manifest.onsite_events
        if len(stored) and _shapes(stored) == [(shape.length, shape.lookback_days, onsite)]:
            return stored.select(list(SEQUENCE_SCHEMA)).sort("user_id")
    return user_sequences(tables, landing, day, settings=shape, memory_gib=memory_gib)


def _shapes(stored: pl.DataFrame) -> list[tuple[int, int, bool]]:
    """Return the shapes to which the rows were cut; none for rows written before the table held the shape."""
    if ONSITE not in stored.columns:  # written before there were onsite events
        stored = stored.with_columns(pl.lit(None, pl.Boolean).alias(ONSITE))
    stored = stored.with_columns(pl.col(ONSITE).fill_null(False))
    if not set(SHAPE_SCHEMA) <= set(stored.columns):
        return []
    return stored.select(list(SHAPE_SCHEMA)).unique().rows()

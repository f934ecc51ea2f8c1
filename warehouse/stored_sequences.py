"""Table ``user_sequences``: a day's sequences, the shape that each was cut to, and whether onsite events are in them.

A model owns the shape of its sequences: the length and the look-back that it was trained with. The table holds the
sequences of the model that served the day. For a model of another shape they are computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from settings import SequenceSettings
from warehouse.landing import Landing
from warehouse.sequences import SEQUENCE_SCHEMA, sequence_batches
from warehouse.tables import Tables
from warehouse.user_ranges import by_range

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
    """Return the sequences of the users who were active on ``day``, as ``sequence_batches`` does."""
    batches = sequence_batches_of_day(tables, landing, day, shape=shape, memory_gib=memory_gib)
    return pl.concat([pl.DataFrame(schema=SEQUENCE_SCHEMA), *batches])


def sequence_batches_of_day(
    tables: Tables, landing: Landing, day: date, *, shape: SequenceSettings, memory_gib: float
) -> Iterator[pl.DataFrame]:
    """Return the sequences of the users who were active on ``day``, by user_id, some users at a time.

    The sequences come from the table if the table has the day in this ``shape``, and with onsite events if the manifest
    says so now. Making the batches opens no table.
    """
    if day in tables.days(TABLE, "day"):
        stored = tables.scan(TABLE).filter(pl.col("day") == day)
        if _shapes(stored) == [(shape.length, shape.lookback_days, landing.manifest.onsite_events)]:
            columns = list(SEQUENCE_SCHEMA)
            return (rows.select(columns).sort("user_id").collect() for rows in by_range(stored))
    return sequence_batches(tables, landing, [day], settings=shape, memory_gib=memory_gib)


def _shapes(stored: pl.LazyFrame) -> list[tuple[int, int, bool]]:
    """Return the shapes to which the rows were cut; none for rows written before the table held the shape."""
    columns = stored.collect_schema().names()
    if ONSITE not in columns:  # written before there were onsite events
        stored = stored.with_columns(pl.lit(None, pl.Boolean).alias(ONSITE))
    if not set(SHAPE_SCHEMA) <= {*columns, ONSITE}:
        return []
    return stored.select(list(SHAPE_SCHEMA)).with_columns(pl.col(ONSITE).fill_null(False)).unique().collect().rows()

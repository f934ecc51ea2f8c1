"""Table ``user_sequences``: a day's sequences, the shape that each was cut to, and whether onsite events are in them.

A model owns the shape of its sequences: the length and the look-back that it was trained with. The table holds the
sequences of the model that served the day. For a model of another shape they are computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import polars as pl

from engine.engine import Engine, StageRun, Work
from settings import DataSettings, SequenceSettings
from warehouse.landing import Landing
from warehouse.part_files import write_parts
from warehouse.sequences import (
    SEQUENCE_SCHEMA,
    SequenceSource,
    active_sequences,
    buckets_of_days,
    of_all_buckets,
)
from warehouse.tables import Tables
from warehouse.user_buckets import UserBucket
from warehouse.user_ranges import by_range

TABLE = "user_sequences"
MAXIMUM_LENGTH, LOOKBACK_DAYS = "maximum_length", "lookback_days"
ONSITE = "onsite_events"
SHAPE_SCHEMA = {MAXIMUM_LENGTH: pl.Int32(), LOOKBACK_DAYS: pl.Int32(), ONSITE: pl.Boolean()}


def write_sequences(
    tables: Tables, landing: Landing, day: date, *, shape: SequenceSettings, data: DataSettings, engine: Engine
) -> None:
    """Write the sequences of the users who were active on ``day``; the sequences need not fit into memory."""
    onsite = landing.manifest.onsite_events
    cut = {MAXIMUM_LENGTH: shape.length, LOOKBACK_DAYS: shape.lookback_days, ONSITE: onsite}
    columns = [pl.lit(value, SHAPE_SCHEMA[name]).alias(name) for name, value in cut.items()]
    source = active_sequences(tables, landing, [day], settings=shape, data=data)
    schema = pl.Schema({**SEQUENCE_SCHEMA, **SHAPE_SCHEMA})
    run = StageRun(engine, partial(_with_shape, source, columns), source.buckets)
    write_parts(tables, TABLE, {"day": day}, schema=schema, run=run)


def _with_shape(source: SequenceSource, columns: Sequence[pl.Expr]) -> Work[UserBucket]:
    return lambda bucket: (batch.with_columns(columns) for batch in source.batches(bucket))


def sequences_of_day(
    tables: Tables, landing: Landing, day: date, *, shape: SequenceSettings, data: DataSettings
) -> pl.DataFrame:
    """Return the sequences of the users who were active on ``day``, in one frame."""
    source = day_sequences(tables, landing, day, shape=shape, data=data)
    return pl.concat([pl.DataFrame(schema=SEQUENCE_SCHEMA), *of_all_buckets(source)])


@dataclass(frozen=True)
class StoredSequences:
    """The sequences of a day that the table has."""

    rows: pl.LazyFrame
    buckets: Sequence[UserBucket]

    def batches(self, bucket: UserBucket) -> Iterator[pl.DataFrame]:
        """Return the sequences of a bucket by user_id, some users at a time."""
        stored = by_range(self.rows.filter(bucket.holds()))
        return (rows.select(list(SEQUENCE_SCHEMA)).sort("user_id").collect() for rows in stored)


def day_sequences(
    tables: Tables, landing: Landing, day: date, *, shape: SequenceSettings, data: DataSettings
) -> SequenceSource:
    """Return the sequences of the users who were active on ``day``.

    The sequences come from the table if the table has the day in this ``shape``, and with onsite events if the manifest
    says so now.
    """
    if day in tables.days(TABLE, "day"):
        stored = tables.scan(TABLE).filter(pl.col("day") == day)
        if _shapes(stored) == [(shape.length, shape.lookback_days, landing.manifest.onsite_events)]:
            return StoredSequences(stored, buckets_of_days(tables, [day], data))
    return active_sequences(tables, landing, [day], settings=shape, data=data)


def _shapes(stored: pl.LazyFrame) -> list[tuple[int, int, bool]]:
    """Return the shapes to which the rows were cut; none for rows written before the table held the shape."""
    columns = stored.collect_schema().names()
    if ONSITE not in columns:  # written before there were onsite events
        stored = stored.with_columns(pl.lit(None, pl.Boolean).alias(ONSITE))
    if not set(SHAPE_SCHEMA) <= {*columns, ONSITE}:
        return []
    return stored.select(list(SHAPE_SCHEMA)).with_columns(pl.col(ONSITE).fill_null(False)).unique().collect().rows()

"""The sequences of a small log in one frame."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl

from settings import SequenceSettings
from warehouse.landing import Landing
from warehouse.sequences import SEQUENCE_SCHEMA, all_sequence_batches, sequence_batches
from warehouse.tables import Tables


def user_sequences(tables: Tables, landing: Landing, day: date, *, settings: SequenceSettings) -> pl.DataFrame:
    """The sequences, as of ``day``, of the users with an event that arrived on ``day``."""
    return _together(sequence_batches(tables, landing, [day], settings=settings))


def all_user_sequences(tables: Tables, landing: Landing, day: date, *, settings: SequenceSettings) -> pl.DataFrame:
    """The sequence of every user as of the user's last active day on or before ``day``."""
    return _together(all_sequence_batches(tables, landing, day, settings=settings))


def _together(batches: Iterator[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=SEQUENCE_SCHEMA), *batches])

"""The sequences of a small log in one frame."""

from __future__ import annotations

from datetime import date

import polars as pl

from settings import SequenceSettings
from warehouse.landing import Landing
from warehouse.sequences import SEQUENCE_SCHEMA, SequenceSource, active_sequences, all_sequences, of_all_buckets
from warehouse.tables import Tables


def user_sequences(tables: Tables, landing: Landing, day: date, *, settings: SequenceSettings) -> pl.DataFrame:
    """The sequences, as of ``day``, of the users with an event that arrived on ``day``."""
    return _together(active_sequences(tables, landing, [day], settings=settings))


def all_user_sequences(tables: Tables, landing: Landing, day: date, *, settings: SequenceSettings) -> pl.DataFrame:
    """The sequence of every user as of the user's last active day on or before ``day``."""
    return _together(all_sequences(tables, landing, day, settings=settings))


def _together(source: SequenceSource) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=SEQUENCE_SCHEMA), *of_all_buckets(source)])

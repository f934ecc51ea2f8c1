"""A run of rows that are there already, for benchmarks and tests of what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from engine.engine import StageRun, Work
from engine.local import LocalEngine


def rows_at_hand(batches: Sequence[pl.DataFrame]) -> StageRun[pl.DataFrame]:
    """Return a run in this process whose parts are the batches themselves."""
    return StageRun(LocalEngine(), _as_they_are, batches)


def _as_they_are() -> Work[pl.DataFrame]:
    def rows(batch: pl.DataFrame) -> Iterator[pl.DataFrame]:
        yield batch

    return rows

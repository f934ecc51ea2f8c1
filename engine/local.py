"""The engine of one machine: one part after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from engine.engine import Part, Rows, Stage, StageRun, Work


class LocalEngine:
    """Runs parts in this process."""

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Rows:
        """Return the rows of all parts, in the order of the parts."""
        return _rows(stage(), parts)

    def figures(self) -> dict[str, str | int]:
        """Return no figure: there is no cluster."""
        return {}


def _rows(work: Work[Part], parts: Sequence[Part]) -> Rows:
    for part in parts:
        yield from work(part)


def rows_at_hand(batches: Sequence[pl.DataFrame]) -> StageRun[pl.DataFrame]:
    """Return a run in this process whose parts are the batches themselves."""
    return StageRun(LocalEngine(), _as_they_are, batches)


def _as_they_are() -> Work[pl.DataFrame]:
    def rows(batch: pl.DataFrame) -> Iterator[pl.DataFrame]:
        yield batch

    return rows

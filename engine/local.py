"""The engine of one machine: one part after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from engine.engine import Part, Stage


class LocalEngine:
    """Runs parts in this process."""

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Iterator[pl.DataFrame]:
        """Return the rows of all parts, in the order of the parts."""
        work = stage()
        return (rows for part in parts for rows in work(part))

    def figures(self) -> dict[str, str | int]:
        """Return nothing: a person knows this process."""
        return {}

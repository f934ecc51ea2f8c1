"""The engine of one machine: one part after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from engine.engine import Part, Rows, Stage, Work


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

"""What a stage asks of the place that it runs in.

A stage is cut into parts, such as buckets of users, and the work of a part gives rows. The driver takes the rows part
by part and makes the one commit of the table, so that a stage that dies leaves the table as it was. The parts depend on
the data and not on the engine: the same parts give the same rows on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import polars as pl

from settings import EngineKind, EngineSettings

Part = TypeVar("Part")
Work = Callable[[Part], Iterator[pl.DataFrame]]
"""The rows of a part, some at a time. Making them opens no table: delta-rs may be writing one in the same process."""
Stage = Callable[[], Work[Part]]
"""Makes the work: loads what all parts need. A cluster calls a stage in each of its processes, so it can be pickled."""


class Engine(Protocol):
    """Runs the parts of stages."""

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Iterator[pl.DataFrame]:
        """Return the rows of all parts, in the order of the parts.

        An engine in this process calls ``stage`` before this returns, and ``Work`` when rows are asked for.
        """
        ...

    def figures(self) -> dict[str, str | int]:
        """Return what a person wants to know of the place, for the metadata of an asset; empty for this process."""
        ...


def engine_of(settings: EngineSettings) -> Engine:
    """Return the engine of the settings.

    Raises:
        RayMissing: the settings ask for Ray, and Ray is not installed.
    """
    if settings.kind is EngineKind.ray:
        from engine.on_ray import RayEngine

        return RayEngine.connected(settings.address)
    from engine.local import LocalEngine

    return LocalEngine()

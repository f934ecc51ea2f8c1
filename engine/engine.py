"""The contract between a stage and the place that it runs in.

A stage is cut into parts, such as buckets of users, and the work of a part gives rows. The driver takes the rows part
by part and makes the one commit of the table, so that a stage that dies leaves the table as it was. The parts depend on
the data and not on the engine: the same parts give the same rows on every engine.

A training is another kind of work: several processes do it together, and exchange gradients at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import polars as pl

from settings import EngineKind, EngineSettings

AFTER_A_DEATH = (
    "The next run goes on after the newest epoch, also with other memory or on the other engine. A process needs "
    "memory for the examples, the catalogue and the model. A lower ADSEQ_TRAINING__PROCESSES needs less, and begins "
    "the training anew."
)

Part = TypeVar("Part")
Work = Callable[[Part], Iterator[pl.DataFrame]]
"""The rows of a part, some at a time. Making them opens no table: delta-rs may be writing one in the same process."""
Stage = Callable[[], Work[Part]]
"""Loads the data that all parts need, and returns the work. A cluster pickles a stage, and calls the stage once in each
of its processes."""
Rows = Generator[pl.DataFrame, None, None]


class EngineFailed(RuntimeError):
    """The cluster cannot be used, or what ran a part or a training has died; the message says what to do."""


def lost_connection(error: Exception) -> bool:
    """Return whether gloo, whose errors name the place in its code, or another backend of torch raised the error.

    Processes raise it when another process of their training has died.
    """
    return "/gloo/" in str(error) or type(error).__module__ == "torch.distributed"


@dataclass(frozen=True)
class Member:
    """One of the processes that train together; under ``options()`` Lightning's trainer takes the mean gradients."""

    rank: int
    processes: int
    options: Callable[[], dict[str, Any]]


Training = Callable[[Member], None]
"""What each process does. A cluster pickles a training, and the training leaves its result in a file."""

SHARED_GRADIENTS: dict[str, Any] = {
    "find_unused_parameters": True,  # the rows of one process may have no event, those of another one may
    "broadcast_buffers": False,  # constants of megabytes
}
"""Options of torch's DistributedDataParallel, the same on every engine."""


class Engine(Protocol):
    """Runs the parts of stages, and trainings."""

    def require_processes(self, processes: int) -> None:
        """Raise ``EngineFailed`` if ``train`` would have to wait for places for so many processes."""

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Rows:
        """Return the rows of all parts, in the order of the parts. The caller closes them (``contextlib.closing``).

        An engine in this process calls ``stage`` before this returns, and ``Work`` when rows are asked for.
        """
        ...

    def at_once(self) -> int:
        """Return how many parts run at once."""
        ...

    def train(self, training: Training, processes: int, directory: Path) -> None:
        """Run ``training`` in so many processes, a group of ``torch.distributed``; raise what it raises.

        ``directory`` is the training's own, and all machines share it.

        Raises:
            EngineFailed: a process of the training, or the cluster, has died.
        """

    def figures(self) -> dict[str, str | int]:
        """Return figures about the cluster for the metadata of an asset; empty for this process."""
        ...


@dataclass(frozen=True)
class StageRun(Generic[Part]):
    """A stage with its parts, and the engine that is to run them."""

    engine: Engine
    stage: Stage[Part]
    parts: Sequence[Part]


def engine_of(settings: EngineSettings) -> Engine:
    """Return the engine of the settings.

    Raises:
        EngineFailed: the settings ask for Ray, and Ray is not installed, or no cluster answers.
    """
    if settings.kind is EngineKind.ray:
        from engine.on_ray import RayEngine

        return RayEngine.connected(settings.address)
    from engine.local import LocalEngine

    return LocalEngine()

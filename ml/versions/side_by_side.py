"""Run the fits of one training side by side: each in a process of its own, on one thread.

Threads of one fit wait for each other several hundred times a step, and spin while they wait. A second thread
makes a fit 1.2 to 1.4 times as fast on a quiet machine; beside other work it costs nine times the processor time and
makes the fit slower. Two fits on one thread each use two cores and never wait for each other.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from lightning.pytorch.loggers import Logger

from engine.worker_processes import wait_for, worker_processes
from ml.versions.tracking import Tracking
from ml.versions.work_directory import announce, ended_fit, fitted_once, training_logger

FitType = TypeVar("FitType")
FitResult = TypeVar("FitResult", covariant=True)


class FitFunction(Protocol[FitResult]):
    """A function that fits, given its directory. A process can be handed the function: no lambda, no local function."""

    def __call__(self, directory: Path, *, logger: Logger | None, resume: Path | None) -> FitResult: ...


@dataclass(frozen=True)
class FitJob(Generic[FitType]):
    """One fit of a training.

    Attributes:
        name: the first words of each line of the fit's progress.
        directory: of its checkpoints; the fit ends there, and is read from there.
        function: fits, from the checkpoint ``resume`` or from the start.
        tracking, run_id: the run that the fit's curves are logged to.
    """

    name: str
    directory: Path
    function: FitFunction[FitType]
    tracking: Tracking
    run_id: str

    def run(self) -> None:
        """Fit, unless the fit has ended before; the result is in ``directory``."""
        multiprocessing.current_process().name = self.name
        logger = training_logger(self.tracking, self.run_id)
        fitted_once(self.directory, lambda place, resume: self.function(place, logger=logger, resume=resume))


@dataclass(frozen=True)
class RunningFit(Generic[FitType]):
    """A fit that runs, or waits for a worker."""

    job: FitJob[FitType]
    future: Future[None]

    def result(self) -> FitType:
        """Wait for the fit and return its result.

        Raises:
            Exception: the exception that the fit raised.
            EngineFailed: the fit's process was killed.
        """
        wait_for([self.future])
        return ended_fit(self.job.directory)


@dataclass(frozen=True)
class FitWorkers:
    """Workers for the fits of a training."""

    executor: Executor

    def start(self, job: FitJob[FitType]) -> RunningFit[FitType]:
        """Hand over a fit, which begins when a worker is free."""
        announce(job.name)
        return RunningFit(job, self.executor.submit(job.run))


class OneAfterTheOther(Executor):
    """Executor that runs each function at once, in this process, on all its threads."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[None] = Future()
        fn(*args, **kwargs)  # an exception ends the training here
        future.set_result(None)
        return future


@contextmanager
def fit_workers(at_once: int) -> Iterator[FitWorkers]:
    """Provide workers for ``at_once`` fits; 0 stands for one a core, and for one fit where there is an accelerator.

    The workers end with the context, even if an exception leaves fits behind, or if this process is killed.
    """
    wanted = at_once or (1 if torch.cuda.is_available() else len(os.sched_getaffinity(0)))
    if wanted == 1:
        yield FitWorkers(OneAfterTheOther())
        return
    with worker_processes(wanted) as pool:
        yield FitWorkers(pool)

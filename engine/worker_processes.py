"""Processes of this machine that train for this one: each on one thread, and none outlives this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from engine.engine import AFTER_A_DEATH, EngineFailed, lost_connection

INTERRUPTIBLE_SECONDS = 0.2


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Provide so many processes; they end with the context, at once if an exception ends it."""
    # Not forked: a forked process cannot use the thread pools of Polars and OpenMP.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_be_a_worker)
    try:
        yield pool
    except BaseException:
        for process in list(pool._processes.values()):  # `terminate_workers` comes with Python 3.14
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def wait_for(futures: Collection[Future[Any]]) -> None:
    """Wait for the work of processes; raise what it raises first.

    Raises:
        EngineFailed: a process was killed.
    """
    waiting = set(futures)
    try:
        # Polars makes interrupted waits resume: without a timeout, Ctrl-C would be noticed at the end.
        while waiting:
            ended, waiting = wait(waiting, INTERRUPTIBLE_SECONDS, FIRST_EXCEPTION)
            for future in ended:
                future.result()
    except Exception as error:
        if not isinstance(error, BrokenProcessPool) and not lost_connection(error):
            raise
        raise EngineFailed(
            f"A process that trained was killed, as the system does when memory runs out. {AFTER_A_DEATH} "
            "ADSEQ_TRAINING__FITS_AT_ONCE=1 runs fewer processes at a time."
        ) from error


def _be_a_worker() -> None:
    """End with the parent, leave interrupts to it, and use one thread."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    threadpool_limits(1)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""Several processes that answer on one socket: started, replaced when one dies, ended together."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from types import FrameType

from uvicorn.config import STARTUP_FAILURE

from serving.connections.server import APPLICATION, serve_on

LOOK_SECONDS = 0.1
RESTART_SECONDS = 1.0  # between two starts of a process that dies
multiprocessing.allow_connection_pickling()


class WorkersFailed(RuntimeError):
    """A process could not start; the log of the process says why."""


class Workers:
    """The processes of one service, as many as asked for."""

    def __init__(
        self, listening: socket.socket, count: int, grace_seconds: float, application: str = APPLICATION
    ) -> None:
        self.listening, self.grace_seconds, self.application = listening, grace_seconds, application
        self._context = multiprocessing.get_context("spawn")
        self._ending = self._context.Event()  # for the processes: the service ends, not one of them
        self.processes = [self._started() for _ in range(count)]
        self._signal: int | None = None
        self._stop = threading.Event()

    def run(self) -> None:
        """Keep the processes alive until SIGTERM or Ctrl-C, then end them.

        Raises:
            WorkersFailed: a process could not start; the others are ended.
        """
        before = {number: signal.signal(number, self._begin_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stop.is_set():
                wait([process.sentinel for process in self.processes], LOOK_SECONDS)
                self._replace_the_dead()
        finally:
            self._end_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _begin_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self._stop.set()

    def _replace_the_dead(self) -> None:
        for place, process in enumerate(self.processes):
            if process.is_alive() or self._stop.is_set():
                continue
            if process.exitcode == STARTUP_FAILURE:
                raise WorkersFailed("a process of the service could not start: see its message above")
            self._stop.wait(RESTART_SECONDS)
            if not self._stop.is_set():
                self.processes[place] = self._started()

    def _started(self) -> SpawnProcess:
        arguments = self.listening, self.application, self._ending
        process = self._context.Process(target=serve_until_stopped, args=arguments)
        process.start()
        return process

    def _end_all(self) -> None:
        """Pass the signal on; kill those that have not ended within the grace period."""
        self._ending.set()
        self.listening.close()  # so that nobody listens when the processes have stopped to
        for process in self.processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, self._signal or signal.SIGTERM)
        until = time.monotonic() + self.grace_seconds
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def serve_until_stopped(listening: socket.socket, application: str, ending: Event) -> None:
    """Answer in a process of its own, until a signal or the end of the parent."""
    threading.Thread(target=_end_with_the_parent, args=(ending,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # the parent has it, too
        serve_on(listening, application, ending.is_set)


def _end_with_the_parent(ending: Event) -> None:
    """End as on SIGTERM when the parent is gone.

    A killed parent passes no signal on, and the port would stay taken.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        ending.set()
        os.kill(os.getpid(), signal.SIGTERM)

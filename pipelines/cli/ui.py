"""``adseq ui``: Dagster and MLflow on one home, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
from rich.console import Console

from pipelines.cli.errors import ServiceFailed
from pipelines.cli.interruption import SIGNALS, leave
from pipelines.instance import PROJECT, close_abandoned_runs, instance, use_home
from warehouse.home import Home, HomeLocked

HOST = "127.0.0.1"
DAGSTER_PORT = 3000
MLFLOW_PORT = 5000
START_SECONDS = 120.0
# What a service gets after each signal before the next, sharper one: within five seconds nothing of it is left.
PATIENCE = ((signal.SIGINT, 2.5), (signal.SIGTERM, 0.7), (signal.SIGKILL, 0.8))


@dataclass(frozen=True)
class UiProcess:
    """A running service, in a session (hence a process group) of its own."""

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def answers(self) -> bool:
        """Whether the service answers HTTP."""
        try:
            with urllib.request.urlopen(self.url, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def check(self) -> None:
        """Raise if the service has died.

        Raises:
            ServiceFailed: the service has died.
        """
        code = self.process.poll()
        if code is not None:
            raise ServiceFailed(f"{self.name} stopped by itself (exit code {code}). Its log says why: {self.log}")


def serve(home: Home, console: Console) -> None:
    """Run both services until Ctrl-C or SIGTERM, stop both, and end the process.

    Raises:
        ServiceFailed: one service did not start, or died. The other one has been stopped.
    """
    use_home(home)
    _close_abandoned(home, console)
    dagster_port = free_port(DAGSTER_PORT)
    mlflow_port = free_port(MLFLOW_PORT, taken={dagster_port})
    services: list[UiProcess] = []
    with _interruptible():
        try:
            services.append(_start("Dagster", dagster_command(dagster_port), dagster_port, home))
            services.append(_start("MLflow", mlflow_command(home, mlflow_port), mlflow_port, home))
            console.print(f"Starting Dagster and MLflow on {home.root} ...", highlight=False, markup=False)
            _await(services, console)
            console.print("Ctrl-C stops both.")
            while True:
                time.sleep(0.5)
                for service in services:
                    service.check()
        except _Interrupted as interrupted:
            _ignore_interrupts()  # a second Ctrl-C must not leave half of them running
            console.print("\nStopping Dagster and MLflow ...")
            stop(services)
            console.print("Both have stopped.")
            leave(interrupted.number)
        finally:
            _ignore_interrupts()
            stop(services)


def _close_abandoned(home: Home, console: Console) -> None:
    """Close the runs of killed processes, which would block the queue, unless a process is writing to the home now."""
    try:
        with home.writing("closing abandoned runs"), instance() as opened:
            close_abandoned_runs(opened)
    except HomeLocked as busy:
        console.print(f"[yellow]{busy}[/]", highlight=False)


def dagster_command(port: int) -> list[str]:
    """Return the command that starts the webserver, the daemon and the code server of the definitions."""
    target = [
        "--module-name",
        "pipelines.definitions",
        "--working-directory",
        str(PROJECT),
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    return [sys.executable, "-m", "dagster_dg_cli.cli", "dev", *target]


def mlflow_command(home: Home, port: int) -> list[str]:
    """Return the command that starts MLflow's server on the home's database."""
    storage = ["--backend-store-uri", home.tracking_uri, "--default-artifact-root", home.artifacts.as_uri()]
    return [sys.executable, "-m", "mlflow", "server", *storage, "--host", HOST, "--port", str(port), "--workers", "1"]


def free_port(preferred: int, taken: set[int] | frozenset[int] = frozenset()) -> int:
    """Return ``preferred``, or the next port of this machine without a listener."""
    for port in range(preferred, preferred + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in taken:
            return port
    raise ServiceFailed(
        f"No free port from {preferred} to {preferred + 99} on {HOST}: stop something that listens there."
    )


def _start(name: str, command: Sequence[str], port: int, home: Home) -> UiProcess:
    log = home.root / "logs" / f"{name.lower()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home.root,
            env=environment,
            start_new_session=True,
        )
    return UiProcess(name, f"http://{HOST}:{port}", log, process)


def stop(services: Sequence[UiProcess]) -> None:
    """Stop the services and all processes that the services started, at the same time; return when none is left."""
    sessions = [service.process.pid for service in services]
    families = [process for session in sessions for process in _family(session)]
    for sign, seconds in PATIENCE:
        alive = _alive(families, 0)
        if not alive:
            break
        for session in sessions:
            _signal_group(session, sign)
        if sign != signal.SIGINT:  # also the processes that have left the group
            for process in alive:
                _signal(process, sign)
        _alive(alive, seconds)
    for service in services:
        service.process.poll()


def _alive(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait at most ``seconds`` for processes to end; return the processes that go on."""
    deadline, alive = time.monotonic() + seconds, list(processes)
    while True:
        alive = [process for process in alive if _goes_on(process)]
        if not alive or time.monotonic() >= deadline:
            return alive
        time.sleep(0.05)


def _await(services: Sequence[UiProcess], console: Console) -> None:
    """Wait until every service answers; print the address of each service that answers."""
    deadline = time.monotonic() + START_SECONDS
    waiting = list(services)
    while waiting:
        for service in services:
            service.check()
        for service in [service for service in waiting if service.answers()]:
            waiting.remove(service)
            line = f"  {service.name:<8} {service.url}   [dim]log: {service.log}[/]"
            console.print(line, highlight=False, soft_wrap=True)
        if waiting and time.monotonic() > deadline:
            late = waiting[0]
            raise ServiceFailed(f"{late.name} does not answer after {START_SECONDS:.0f} s. Its log: {late.log}")
        time.sleep(0.2)


def _goes_on(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie, which its parent never collects, has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _family(session: int) -> list[psutil.Process]:
    """Return the processes of a session as of now; the session outlives the process that began the session."""
    return [process for process in psutil.process_iter() if _session(process.pid) == session]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None  # it has just ended, or is somebody else's


def _signal_group(group: int, sign: signal.Signals) -> None:
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return  # all of the group have ended


def _signal(process: psutil.Process, sign: signal.Signals) -> None:
    try:
        process.send_signal(sign)
    except psutil.NoSuchProcess:
        return  # it has just ended


class _Interrupted(Exception):
    """A signal asks for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise ``_Interrupted`` at Ctrl-C and SIGTERM within the block; put the handlers back afterwards."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise _Interrupted(number)

    before = {sign: signal.signal(sign, interrupt) for sign in SIGNALS}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _ignore_interrupts() -> None:
    for sign in SIGNALS:
        signal.signal(sign, signal.SIG_IGN)

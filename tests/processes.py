"""Processes that start at once: each is forked from one that has imported the libraries and used nothing of them.

``start(CODE, ARGUMENTS)`` does what ``python -u -c CODE ARGUMENTS`` does, without the seconds that its imports take.
The process has its own id, environment, streams and exit code, and it can be killed like any other. One server
(``tests/fork_server.py``) forks for all processes that share the tests, and ends with them. It needs Linux; elsewhere
the same functions start Python anew.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).resolve().parents[1]
ADDRESS = "FORK_SERVER_OF_TESTS"
"""The environment variable that names the server's socket to all processes that share the tests."""

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT


def start_server() -> None:
    """Start the server that forks, unless another process that shares the tests has done so.

    It imports nothing before it is asked for a process, and ends when this process ends.
    """
    if sys.platform != "linux" or ADDRESS in os.environ:
        return
    directory = tempfile.mkdtemp(prefix="adseq-forks-")
    address = f"{directory}/socket"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    subprocess.Popen(
        [sys.executable, "-c", "from tests.fork_server import main; main()", str(listening.fileno()), address],
        cwd=PROJECT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "COLUMNS": "300",
            "MPLBACKEND": "agg",
        },
        stdin=subprocess.PIPE,  # closes when this process ends
        pass_fds=[listening.fileno()],
        start_new_session=True,  # Ctrl-C is for the tests
    )
    listening.close()
    os.environ[ADDRESS] = address


def start(
    code: str,
    *arguments: str,
    environment: Mapping[str, str],
    stdout: int = PIPE,
    stderr: int = PIPE,
) -> Started:
    """Start ``python -u -c CODE ARGUMENTS`` in the project's directory, with this environment and no other.

    Args:
        stdout, stderr: ``PIPE``, ``DEVNULL`` or, of ``stderr``, ``STDOUT``. Pipes carry text.
    """
    sys.audit("tests.processes.start")
    if ADDRESS not in os.environ:
        command = [sys.executable, "-u", "-c", code, *arguments]
        return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=stdout, stderr=stderr, text=True)
    return Process(code, arguments, environment, stdout, stderr)


def run(code: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -u -c CODE ARGUMENTS`` to its end and return what it printed."""
    process = start(code, *arguments, environment=environment)
    printed, said = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(["-c", *arguments], process.returncode, printed, said)


class Process:
    """A process that was forked for the tests, with those methods of ``subprocess.Popen`` that the tests use."""

    def __init__(
        self, code: str, arguments: tuple[str, ...], environment: Mapping[str, str], stdout: int, stderr: int
    ) -> None:
        self.returncode: int | None = None
        self.stdout, out = _stream(stdout)
        self.stderr, error = (None, os.dup(out)) if stderr == STDOUT else _stream(stderr)
        nothing = os.open(os.devnull, os.O_RDONLY)
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._connection.connect(os.environ[ADDRESS])
            request = json.dumps({"code": code, "arguments": arguments, "environment": dict(environment)}).encode()
            socket.send_fds(self._connection, [len(request).to_bytes(8, "big")], [nothing, out, error])
            self._connection.sendall(request)
        finally:
            for descriptor in (nothing, out, error):
                os.close(descriptor)
        pid = self._receive(None)
        assert pid is not None, "the fork server is gone"
        self.pid: int = pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both pipes to their ends, wait for the process and return what it printed.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        found: dict[Any, list[bytes]] = {self.stdout: [], self.stderr: []}
        with selectors.DefaultSelector() as selector:
            for stream in (self.stdout, self.stderr):
                if stream is not None and not stream.closed:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                ready = selector.select(left)
                if not ready and left is not None:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
                for key, _ in ready:
                    part = os.read(key.fd, 1 << 16)
                    found[key.fileobj].append(part)
                    if not part:
                        selector.unregister(key.fileobj)
        self.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        printed, said = (b"".join(found[stream]).decode() for stream in (self.stdout, self.stderr))
        return printed, said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self.returncode = self._receive(timeout)
            if self.returncode is not None:
                self._connection.close()
        return self.returncode

    def _receive(self, timeout: float | None) -> int | None:
        """Return the next number that the server tells of the process, or None where none has come in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            if not selector.select(timeout):
                return None
        told = self._connection.recv(8, socket.MSG_WAITALL)
        assert len(told) == 8, "the fork server is gone"
        return int.from_bytes(told, "big", signed=True)


Started = Process | subprocess.Popen[str]
"""What ``start`` returns."""


def _stream(kind: int) -> tuple[IO[str] | None, int]:
    """Return what the tests read from, and the descriptor that the process writes to."""
    if kind == DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    reading, writing = os.pipe()
    return os.fdopen(reading), writing

"""SIGTERM: others learn of it, what was accepted is answered, and the process ends, whatever clients do."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter

import psutil
import pytest

from tests.serving.listening import answer, ask, process
from tests.serving.running import PATIENCE, wait_for

pytestmark = pytest.mark.slow
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = GET.replace(b"/ ", b"/slow ")
READY = GET.replace(b"/ ", b"/ready ")
GRACE = 3.0  # seconds


def kept_alive(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(GET)
    assert b"connection: close" not in answer(connection).lower()
    return connection


def test_it_says_so_at_once_answers_what_comes_and_closes() -> None:
    with process(drain_seconds=0.5, grace_seconds=GRACE) as (port, started):
        idle, never_used = kept_alive(port), kept_alive(port)
        assert ask(port, READY).startswith(b"HTTP/1.1 200")
        busy = socket.create_connection(("127.0.0.1", port), 10)
        busy.sendall(SLOW)
        time.sleep(0.05)
        started.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        assert ask(port, READY).startswith(b"HTTP/1.1 503")
        for connection in (idle, busy):
            if connection is idle:
                connection.sendall(GET)
            found = answer(connection)
            assert found.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in found.lower()
        assert never_used.recv(1) == b""
        assert started.wait(GRACE + 1) == -signal.SIGTERM
        with pytest.raises(ConnectionRefusedError):
            ask(port)


@pytest.mark.parametrize("processes", [1, 2])
def test_it_ends_in_time_whatever_clients_do(processes: int) -> None:
    with process(processes, drain_seconds=0.2, grace_seconds=GRACE) as (port, started):
        assert ask(port).startswith(b"HTTP/1.1 200")
        workers = [each for each in psutil.Process(started.pid).children() if "spawn_main" in str(each.cmdline())]
        assert len(workers) == (processes if processes > 1 else 0)
        clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(40)]
        half = [b"", b"GET / HT", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", GET, SLOW]
        large = GET.replace(b"/ ", b"/large ") * 5
        for number, client in enumerate(clients):
            client.sendall([*half, large][number % 6])
        began = time.monotonic()
        started.send_signal(signal.SIGTERM)
        started.wait(PATIENCE)
        assert time.monotonic() - began < GRACE + 2  # Python's own end takes a part of a second
        assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
        for client in clients:
            client.close()


def test_the_processes_end_with_a_parent_that_is_killed() -> None:
    with process(2, drain_seconds=0.1, grace_seconds=GRACE) as (port, started):
        assert ask(port).startswith(b"HTTP/1.1 200")
        workers = [each for each in psutil.Process(started.pid).children() if "spawn_main" in str(each.cmdline())]
        busy = socket.create_connection(("127.0.0.1", port), 10)
        busy.sendall(SLOW)
        time.sleep(0.05)
        started.kill()
        assert answer(busy).startswith(b"HTTP/1.1 200")
        _, living = psutil.wait_procs(workers, GRACE + 2)
        assert not living


@pytest.mark.parametrize("processes", [1, 2])
def test_no_request_that_was_accepted_is_lost_under_load(processes: int) -> None:
    """Every request has a whole answer, or its connection was refused or closed before it was sent."""
    ends: Counter[str] = Counter()
    stopped = threading.Event()

    def load(keeps: bool) -> None:
        connection: socket.socket | None = None
        while not stopped.is_set():
            if connection is None:
                try:
                    connection = socket.create_connection(("127.0.0.1", port), 10)
                except ConnectionRefusedError:
                    stopped.set()
                    return
            if keeps and is_closed(connection):
                connection.close()
                connection = None
                continue
            try:
                connection.sendall(GET)
                found = answer(connection)
            except ConnectionError:
                found = b""
            whole = found.startswith(b"HTTP/1.1 200") and found.endswith(b"\r\n\r\nok")
            ends["whole" if whole else "lost"] += 1
            if not keeps or not whole or b"connection: close" in found.lower():
                connection.close()
                connection = None

    with process(processes, drain_seconds=0.3, grace_seconds=GRACE) as (port, started):
        assert ask(port).startswith(b"HTTP/1.1 200")
        threads = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: ends["whole"] > 100)
        started.send_signal(signal.SIGTERM)
        started.wait(PATIENCE)
        for thread in threads:
            thread.join(5)
    assert ends["lost"] == 0


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.settimeout(10)


def test_ctrl_c_does_not_wait_for_others_to_learn_of_it() -> None:
    with process(drain_seconds=30, grace_seconds=60) as (port, started):
        assert ask(port).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        started.send_signal(signal.SIGINT)
        started.wait(5)
        assert time.monotonic() - began < 4

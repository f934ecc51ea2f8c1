"""nginx in front of the service, as `adseq proxy` starts it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cli.proxy import configuration
from serving.middleware.auth_and_timing import MAXIMUM_BODY
from settings import ServingSettings
from tests.serving.listening import answer, ask, process
from tests.serving.running import connects, free_port, wait_for

pytestmark = pytest.mark.slow
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx)")
    directory, port = tmp_path_factory.mktemp("proxy") / "a home; with odd names", free_port()
    directory.mkdir()
    written = Path(directory) / "nginx.conf"
    with process() as (upstream, _):
        written.write_text(configuration(port, upstream, directory, limits=ServingSettings(request_seconds=1)))
        assert "@" not in written.read_text()
        command = [program, "-p", str(directory), "-c", str(written), "-e", "stderr"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as nginx:
            try:
                wait_for(lambda: connects(port))
                yield port
            finally:
                nginx.terminate()


def test_it_passes_requests_and_answers_on(port: int) -> None:
    body = b"x" * (MAXIMUM_BODY - 1)
    assert ask(port).startswith(b"HTTP/1.1 200")
    large = ask(port, GET.replace(b"/ ", b"/large "))
    assert len(large) > 4 * 1024 * 1024
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    assert ask(port, head % len(body) + body).startswith(b"HTTP/1.1 200")


def test_silent_and_half_sent_connections_keep_nobody_out(port: int) -> None:
    half = [b"", b"POST /body HTTP/1.1\r\nHo", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"]
    silent = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(600)]
    for number, connection in enumerate(silent):
        connection.sendall(half[number % 3])
    assert ask(port, patience=1).startswith(b"HTTP/1.1 200")
    for connection in silent:
        connection.close()


def test_it_takes_the_heads_that_the_service_takes(port: int) -> None:
    bound = ServingSettings().maximum_head_bytes
    assert ask(port, GET[:-2] + b"x: " + b"a" * (bound - 200) + b"\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert ask(port, GET[:-2] + b"x: y\r\n" * (bound // 6) + b"\r\n").startswith(b"HTTP/1.1 4")


def test_what_is_too_large_is_refused(port: int) -> None:
    assert ask(port, b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 100_000).startswith(b"HTTP/1.1 400")
    assert ask(port, b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n").startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n")
        connection.sendall(b"a" * 0x200000)
        assert answer(connection).startswith(b"HTTP/1.1 413")

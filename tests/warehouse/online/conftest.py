"""Stores to test: LMDB, and a Redis server of the test's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from warehouse.online import LmdbStore, OnlineStore, StoreUnreachable
from warehouse.online.redis_store import RedisStore


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that ends with the tests."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("redis")
    arguments = [program, "--port", str(port), "--dir", str(directory), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as server:
        try:
            yield _answering(f"redis://127.0.0.1:{port}/0")
        finally:
            server.kill()


def _answering(url: str) -> str:
    for _ in range(100):
        try:
            RedisStore(url).close()
            return url
        except StoreUnreachable:
            time.sleep(0.05)
    raise TimeoutError(f"redis-server does not answer at {url}")


@pytest.fixture(params=["lmdb", pytest.param("redis", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    """An empty store of each kind."""
    made: OnlineStore
    if request.param == "lmdb":
        made = LmdbStore(tmp_path / "online")
    else:
        made = RedisStore(request.getfixturevalue("redis_url"))
        made.client.flushdb()
    yield made
    made.close()

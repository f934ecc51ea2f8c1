"""Several processes that share a port."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.assets.world import copy_of
from tests.flow import Ran
from tests.serving.running import ask, free_port, service, wait_for

pytestmark = pytest.mark.slow
REQUESTS = 40


def answered(port: int) -> float:
    return sum(float(value) for value in re.findall(r"^adseq_answers_total\{.*\} (\S+)$", scraped(port), re.MULTILINE))


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text: str = response.read().decode()
    return text


def test_whichever_is_asked_counts_for_all_and_one_that_dies_is_replaced(ran: Ran, tmp_path: Path) -> None:
    home, port = copy_of(ran.home, tmp_path / "home"), free_port()
    with service(home, port, "--processes", "2") as parent:
        for _ in range(REQUESTS):
            assert ask(port, "/candidates", {"user_id": "u"}) is not None
        assert {answered(port) for _ in range(8)} == {REQUESTS}
        workers = spawned(parent.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        wait_for(lambda: ask(port, "/candidates", {"user_id": "u"}) is not None)
        wait_for(lambda: len(set(spawned(parent.pid)) - set(workers)) == 1)
        wait_for(lambda: ask(port, "/candidates", {"user_id": "u"}) is not None)
        wait_for(lambda: 'adseq_served{day="2026-03-03",model_version="item-1"} 2.0' in scraped(port))


def spawned(parent: int) -> list[int]:
    """Processes that answer, or begin to."""
    living = [each for each in psutil.Process(parent).children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each.pid for each in living if "spawn_main" in str(each.cmdline())]

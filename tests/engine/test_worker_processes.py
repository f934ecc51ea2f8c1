"""Processes of a local training do not outlive the process that started them."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from engine.engine import Member
from engine.local import LocalEngine
from tests import processes

PATIENCE = 120.0
CODE = "import sys; from tests.engine.test_worker_processes import train; train(sys.argv[1])"


def train(directory: str) -> None:
    LocalEngine().train(partial(wait, Path(directory)), 2, Path(directory))


def wait(directory: Path, member: Member) -> None:
    """Wait for the other process, or for ever."""
    (directory / f"{member.rank}").touch()
    if member.rank == 0:
        torch.distributed.barrier()
    time.sleep(PATIENCE)


@pytest.mark.slow
def test_processes_of_a_training_end_when_the_run_is_killed(tmp_path: Path) -> None:
    run, deadline = processes.start(CODE, str(tmp_path), environment=os.environ), time.monotonic() + PATIENCE
    while len(list(tmp_path.iterdir())) < 2:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(run.pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(run.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=5)
    for worker in alive:
        worker.kill()
    assert not alive
    run.communicate()

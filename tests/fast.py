"""Fast tests (``pytest --fast``) start no process and train nothing. One that tries is told to be marked slow."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SLOW_FIXTURES = {"ran", "day_later", "trained", "fitted", "loaded", "read_only"}
"""Fixtures that train or start a process: whatever uses them is slow."""

START_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "tests.processes.start"}
ALL_SLOW = "\npytestmark = pytest.mark.slow\n"
MARK = "is no thing for a fast test: mark the test slow"


def mark_slow(items: Sequence[pytest.Item]) -> None:
    """Mark what uses a slow fixture."""
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


class Guard:
    """Refuses processes and trainings while a test runs, and spares what a fast run has no use for."""

    def __init__(self) -> None:
        self._testing = False
        sys.addaudithook(self._refuse_processes)

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Import no module whose tests are all slow."""
        all_slow = collection_path.match("test_*.py") and ALL_SLOW in collection_path.read_text()
        return True if all_slow else None

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Spare the search for garbage among the million objects that imports make, which all stay."""
        gc.disable()
        try:
            return (yield)
        finally:
            gc.freeze()
            gc.enable()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self._testing = True
        try:
            return (yield)
        finally:
            self._testing = False

    @pytest.fixture(autouse=True)
    def _no_training(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            pytest.fail(f"A training {MARK}")

        if "lightning.pytorch" in sys.modules:
            monkeypatch.setattr("lightning.pytorch.Trainer.fit", refuse)

    def _refuse_processes(self, event: str, _: tuple[object, ...]) -> None:
        if self._testing and event in START_A_PROCESS:
            pytest.fail(f"A process ({event}) {MARK}")

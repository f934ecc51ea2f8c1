"""A training that was killed goes on from its last epoch, and comes to what it would have come to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import torch

from ml.examples.period import TrainingPeriod
from ml.training.checkpoints import last_checkpoint
from ml.training.fit import RetrievalModule
from ml.versions.fingerprint import fingerprint_of
from ml.versions.tracking import Tracking
from ml.versions.work_directory import ENDED, fitted_once, workplace
from settings import EngineKind, Settings
from tests import processes
from tests.ml.toy_task import ToyTask
from tests.processes import Started

PATIENCE = 240.0


def start(directory: Path) -> Started:
    code = "from tests.ml.fitting import main; main()"
    return processes.start(code, str(directory), environment=os.environ, stdout=processes.DEVNULL)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(directory.with_suffix(".weights"))
    return found


def epoch_of(path: Path) -> int:
    try:
        return int(torch.load(path, weights_only=True)["epoch"])
    except (OSError, EOFError, RuntimeError):
        return -1


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    directory = tmp_path_factory.mktemp("whole") / "fit"
    assert start(directory).wait(PATIENCE) == 0
    return weights(directory)


@pytest.mark.slow
def test_killed_after_an_epoch_it_comes_to_the_same_weights(
    uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    directory = tmp_path / "fit"
    process, deadline = start(directory), time.monotonic() + PATIENCE
    while epoch_of(last_checkpoint(directory)) < 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (directory / ENDED).exists()
    again = start(directory)
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert "goes on after epoch" in said
    found = weights(directory)
    assert all(torch.equal(found[name], value) for name, value in uninterrupted.items())
    third = start(directory)
    _, said = third.communicate(timeout=PATIENCE)
    assert "had ended before" in said
    assert all(torch.equal(weights(directory)[name], value) for name, value in uninterrupted.items())


@pytest.mark.slow
def test_half_a_checkpoint_is_none(uninterrupted: dict[str, torch.Tensor], tmp_path: Path) -> None:
    directory = tmp_path / "fit"
    directory.mkdir()
    last_checkpoint(directory).write_bytes(b"PK half of a checkpoint")
    process = start(directory)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "goes on" not in said
    assert all(torch.equal(weights(directory)[name], value) for name, value in uninterrupted.items())


def test_what_has_ended_is_not_done_again(tmp_path: Path) -> None:
    asked: list[Path | None] = []

    def train(_: Path, resume: Path | None) -> str:
        asked.append(resume)
        return "fitted"

    assert [fitted_once(tmp_path / "fit", train) for _ in range(3)] == ["fitted"] * 3
    assert asked == [None]
    (tmp_path / "fit" / ENDED).write_bytes(b"")
    assert fitted_once(tmp_path / "fit", train) == "fitted"
    assert asked == [None, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine.kind", EngineKind.ray),
        ("engine.address", "10.0.0.1:6380"),
        ("data.memory_gib", 0.5),
        ("data.bucket_events", 1000),
        ("data.scratch", "/scratch"),
        ("training.fits_at_once", 1),
    ],
)
def test_a_setting_without_effect_on_a_training_keeps_its_epochs(
    period: TrainingPeriod, settings: Settings, name: str, value: object
) -> None:
    """After a death its message says to change them."""
    changed = settings.with_value(name, value)
    assert changed != settings
    assert fingerprint_of(period, changed) == fingerprint_of(period, settings)
    task = ToyTask(settings)
    modules = [RetrievalModule(replace(task, settings=each), task.network(), 1) for each in (settings, changed)]
    assert modules[0].depends_on() == modules[1].depends_on()


REQUESTS = pl.DataFrame({"request_id": ["r1"], "request_time": [datetime(2024, 1, 2, tzinfo=UTC)]})
CHANGES: list[Callable[[TrainingPeriod, Settings], tuple[TrainingPeriod, Settings]]] = [
    lambda period, settings: (period.until(period.end - 86_400), settings),
    lambda period, settings: (period, settings.with_value("training.seed", 1)),
    lambda period, settings: (period, settings.with_value("training.processes", 2)),
    lambda period, settings: (period, settings.with_value("model.dropout", 0.5)),
    lambda period, settings: (replace(period, requests=REQUESTS), settings),
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_another_training_begins_anew(
    period: TrainingPeriod,
    settings: Settings,
    tmp_path: Path,
    change: Callable[[TrainingPeriod, Settings], tuple[TrainingPeriod, Settings]],
) -> None:
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    first = fingerprint_of(period, settings)
    assert fingerprint_of(period, settings) == first
    other = fingerprint_of(*change(period, settings))
    assert other != first
    found = []
    for name in (first, first, other, first):
        with workplace(tmp_path, tracking, "item", name) as work:
            found.append((work / "of a killed training").exists())
            (work / "of a killed training").touch()
    assert found == [False, True, False, False]
    assert [path.name for path in tmp_path.glob(".training-*")] == [f".training-item-{first}"]

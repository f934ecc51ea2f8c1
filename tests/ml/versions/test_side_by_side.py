"""Fits side by side come to the weights of fits one after the other, and leave no process behind."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from engine.engine import EngineFailed
from ml.examples.period import TrainingPeriod, prepare
from ml.training.fit import Fit, fit
from ml.training.item_task import ItemTask
from ml.versions.side_by_side import FitJob, fit_workers
from ml.versions.tracking import TRAINING, Tracking
from settings import Settings
from tests import processes
from tests.ml.waiting import STARTED, die, refuse

PROJECT = Path(__file__).resolve().parents[3]
PATIENCE = 300.0


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")


def jobs(period: TrainingPeriod, settings: Settings, tracking: Tracking, directory: Path) -> list[FitJob[Fit]]:
    """Two fits that differ in their seed."""
    made = []
    for seed in (0, 1):
        seeded = settings.with_value("training.seed", seed)
        run_id = tracking.client.create_run(tracking.experiment(TRAINING)).info.run_id
        fitting = partial(fit, ItemTask.of(period, prepare(period, seeded), seeded), 1)
        made.append(FitJob(f"seed {seed}", directory / str(seed), fitting, tracking, run_id))
    return made


@pytest.mark.slow
def test_fits_in_workers_equal_fits_in_this_process_and_their_errors_arrive(
    period: TrainingPeriod, settings: Settings, tracking: Tracking, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    with fit_workers(at_once=1) as here:
        expected = [here.start(job).result() for job in jobs(period, settings, tracking, tmp_path / "here")]
    with fit_workers(at_once=2) as workers:
        wanted = jobs(period, settings, tracking, tmp_path / "there")
        running = [workers.start(job) for job in wanted]
        found = [each.result() for each in running]
        refused = workers.start(FitJob("refused", tmp_path / "refused", refuse, tracking, wanted[0].run_id))
        with pytest.raises(LookupError, match="nothing to learn here"):
            refused.result()
        killed = workers.start(FitJob("killed", tmp_path / "killed", die, tracking, wanted[0].run_id))
        with pytest.raises(EngineFailed, match=r"was killed.*newest epoch.*ADSEQ_TRAINING__FITS_AT_ONCE=1"):
            killed.result()
    for fitted, other in zip(found, expected, strict=True):
        weights = other.network.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in fitted.network.state_dict().items())
    curves = tracking.client.get_metric_history(wanted[1].run_id, "train_loss")
    assert curves


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_training(ending: signal.Signals, tmp_path: Path) -> None:
    code = "from tests.ml.waiting import main; main()"
    process = processes.start(code, str(tmp_path), environment=os.environ, stdout=processes.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / STARTED).exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    began = time.monotonic()
    os.kill(process.pid, ending)
    process.communicate(timeout=PATIENCE)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert time.monotonic() - began < 10

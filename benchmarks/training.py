"""How many pairs a second does training take, and how much of a step are the matrix products, the limit of any step?

A *pair* is one (history, positive) row of the loss, a *sequence* one encoded history (a user at a cut-off). A batch
encodes a user once however many positives they have, so a fit takes more pairs a second than sequences.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import Table, at_least, at_most
from benchmarks.world import POSITIONS, World
from ml.models.item_model import ItemBatch, TwoTower
from ml.training.fit import fit, optimizer_of, training_loss
from ml.training.item_task import ItemTask
from ml.training.sampling import SampledBatch

WARM_UP_STEPS = 2
STEPS = 20
FIT_EXAMPLES = 20_000
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


@dataclass(frozen=True)
class TrainingSpeed:
    """Rates a second, in one run."""

    step_seconds: float  # median
    batch_rows: float  # mean
    products_share: float  # of the time of a step
    fit_pairs: float
    fit_sequences: float
    fit_waiting_share: float
    fit_length: float  # mean events of a sequence of the fit


@dataclass
class Stepper:
    """A network and its optimiser, one step at a time as Lightning takes them."""

    network: TwoTower
    task: ItemTask

    def __post_init__(self) -> None:
        self.optimizer = optimizer_of(self.network, self.task.settings.training)

    def step(self, batch: SampledBatch[ItemBatch]) -> float:
        """Take one step, and return its seconds."""
        started = time.perf_counter()
        self.optimizer.zero_grad()
        training_loss(self.task, self.network, batch).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - started


def run(world: World, console: Console) -> tuple[TrainingSpeed, Table]:
    """Measure and print."""
    speed = measure(world)
    table = table_of(speed, world)
    table.show(console)
    return speed, table


def measure(world: World) -> TrainingSpeed:
    """Time steps, look into them, then run a real fit."""
    task = ItemTask.of(world.period, world.prepared, world.settings)
    stepper = Stepper(task.network(), task)
    batches = list(islice(task.batches(), WARM_UP_STEPS + STEPS))
    seconds = [stepper.step(batch) for batch in batches][WARM_UP_STEPS:]
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for batch in batches[WARM_UP_STEPS:]:
            stepper.step(batch)
    operations = profiled.key_averages()
    products = sum(each.self_cpu_time_total for each in operations if each.key in MATRIX_PRODUCTS)
    pairs, sequences_a_pair, waiting_share, length = real_fit(world)
    return TrainingSpeed(
        step_seconds=float(np.median(seconds)),
        batch_rows=float(np.mean([len(batch.weight) for batch in batches[WARM_UP_STEPS:]])),
        products_share=products / sum(each.self_cpu_time_total for each in operations),
        fit_pairs=pairs,
        fit_sequences=pairs * sequences_a_pair,
        fit_waiting_share=waiting_share,
        fit_length=length,
    )


def real_fit(world: World) -> tuple[float, float, float, float]:
    """Run one short epoch of ``ml.training.fit.fit``.

    Returns: Pairs a second, sequences a pair, share of waiting, mean length.
    """
    examples, log = world.prepared.examples, world.prepared.dataset.log
    training = world.settings.training.model_copy(update={"epoch_examples": FIT_EXAMPLES})
    settings = world.settings.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-fit-") as directory:
        task = ItemTask.of(world.period, world.prepared, settings)
        fitted = fit(task, 1, Path(directory), progress=False)
    histories = np.unique(np.stack([examples.cutoff, examples.user]), axis=1, return_index=True)[1]
    length = np.minimum(examples.history_end - log.offsets[examples.user], POSITIONS)[histories].mean()
    return fitted.sequences_per_second, len(histories) / len(examples), fitted.waiting_share, float(length)


def table_of(speed: TrainingSpeed, world: World) -> Table:
    """Return the figures beside their targets."""
    model = world.settings.model
    return Table(
        f"Training, batches of {world.settings.training.batch_size}, width {model.width}, {model.layers} layers",
        ("what", "measured", "target"),
        (
            ("a real fit, pairs/s", f"{speed.fit_pairs:,.0f}", at_least(speed.fit_pairs, 2500)),
            ("a real fit, encoded sequences/s", f"{speed.fit_sequences:,.0f}", ""),
            (
                "a real fit, share of time waiting for data",
                f"{speed.fit_waiting_share:.1%}",
                at_most(speed.fit_waiting_share * 100, 5, " %"),
            ),
            ("one step", f"{speed.step_seconds * 1000:.0f} ms", ""),
            ("matrix products, of a step", f"{speed.products_share:.0%}", ""),
        ),
        (
            f"{torch.get_num_threads()} threads. A step has {speed.batch_rows:.0f} pairs and "
            f"{world.settings.training.corpus_negatives:,} corpus negatives; the mean length of the encoded sequences "
            f"is {speed.fit_length:.1f}, without padding.",
        ),
        {
            "a real fit, pairs/s": f"{speed.fit_pairs:,.0f}",
            "matrix products, of a training step: its limit": f"{speed.products_share:.0%}",
        },
    )

"""How many sequences a second does training take, against the same model with every sequence padded?

A *sequence* is one encoded history (a user at a cut-off), a *pair* one (history, positive) row of the loss. A batch
encodes a user once however many positives they have, so a fit takes more pairs a second than sequences. The comparison
with padding uses batches of 512 distinct users of the world with one positive each: sequences and pairs are one there.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.padding import pad_chunks
from benchmarks.report import Table, at_least, at_most
from benchmarks.world import POSITIONS, World
from ml.examples.pairs import Examples
from ml.examples.period import Prepared
from ml.features.cross_fit import uncrossed
from ml.models.item_model import ItemBatch, TwoTower
from ml.training.fit import fit, training_loss
from ml.training.item_task import ItemTask
from ml.training.sampling import ENCODER_TOKENS, SampledBatch

WARM_UP_STEPS = 2
FIT_EXAMPLES = 20_000
TOLERANCE = 1e-4


@dataclass(frozen=True)
class TrainingSpeed:
    """Rates a second, in one run."""

    trimmed: float  # sequences, waiting for data included
    padded: float  # sequences, the same waiting included
    step_seconds: float  # median of a trimmed step
    batch_rows: float  # mean
    fit_pairs: float
    fit_sequences: float
    fit_waiting_share: float
    fit_length: float  # mean events of a sequence of the fit

    @property
    def ratio(self) -> float:
        return self.trimmed / self.padded


@dataclass
class Stepper:
    """A network and its optimiser, one step at a time as Lightning takes them."""

    network: TwoTower
    task: ItemTask

    def __post_init__(self) -> None:
        training = self.task.settings.training
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )

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
    """Alternate trimmed and padded steps on the same batches, then run a real fit."""
    task = distinct_users(world)
    batches, network = task.batches(), task.network()
    trimmed = Stepper(network, task)
    padded = Stepper(copy.deepcopy(network), task)
    waiting: list[float] = []
    steps: list[float] = []
    padded_steps: list[float] = []
    rows: list[int] = []
    source = iter(batches)
    for _ in range(len(batches)):
        started = time.perf_counter()
        batch = next(source)
        waiting.append(time.perf_counter() - started)
        wide = replace(batch, chunks=pad_chunks(batch.chunks, POSITIONS, ENCODER_TOKENS))
        if not steps:
            check_same_states(network, batch, wide)
        steps.append(trimmed.step(batch))
        padded_steps.append(padded.step(wide))
        rows.append(len(batch.weight))
    timed = slice(WARM_UP_STEPS, None)
    taken = sum(rows[timed])
    pairs, sequences_a_pair, waiting_share, length = real_fit(world)
    return TrainingSpeed(
        trimmed=taken / (sum(steps[timed]) + sum(waiting[timed])),
        padded=taken / (sum(padded_steps[timed]) + sum(waiting[timed])),
        step_seconds=float(np.median(steps[timed])),
        batch_rows=taken / len(rows[timed]),
        fit_pairs=pairs,
        fit_sequences=pairs * sequences_a_pair,
        fit_waiting_share=waiting_share,
        fit_length=length,
    )


def distinct_users(world: World) -> ItemTask:
    """Return a task of every user at the end of the log with one positive.

    The task has batches of 512 distinct sequences of the world's lengths. The positive is drawn: the choice of the item
    changes no shape.
    """
    dataset = world.prepared.dataset
    users = np.arange(dataset.log.users)
    items = np.random.default_rng(0).choice(world.prepared.examples.item, len(users))
    examples = Examples(
        cutoff=np.full(len(users), world.period.end),
        user=users,
        history_end=dataset.log.offsets[1:],
        item=items,
        weight=np.ones(len(users), np.float32),
        name=np.ones(len(users), np.int64),
    )
    prepared = Prepared(dataset, examples, items, uncrossed(dataset.features, dataset.log.users))
    return ItemTask.of(world.period, prepared, world.settings)


@torch.inference_mode()
def check_same_states(network: TwoTower, batch: SampledBatch[ItemBatch], wide: SampledBatch[ItemBatch]) -> None:
    """Check that the padded peer is the same model.

    Raises: AssertionError: the states of the peers differ.
    """
    network.eval()
    trimmed, padded = (torch.cat([network.encoder(chunk) for chunk in each.chunks]) for each in (batch, wide))
    difference = float((trimmed - padded).abs().max())
    assert difference < TOLERANCE, f"padding changes the states by {difference}: the comparison is void"
    network.train()


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
            ("trimmed, sequences/s", f"{speed.trimmed:,.0f}", ""),
            (f"the same model padded to {POSITIONS}, sequences/s", f"{speed.padded:,.0f}", ""),
            ("trimmed against padded", f"{speed.ratio:.2f} ×", at_least(speed.ratio, 2.5, " ×")),
            ("one trimmed step", f"{speed.step_seconds * 1000:.0f} ms", ""),
            ("a real fit, pairs/s", f"{speed.fit_pairs:,.0f}", ""),
            ("a real fit, encoded sequences/s", f"{speed.fit_sequences:,.0f}", ""),
            (
                "a real fit, share of time waiting for data",
                f"{speed.fit_waiting_share:.1%}",
                at_most(speed.fit_waiting_share * 100, 5, " %"),
            ),
        ),
        (
            f"Trimmed and padded steps alternate on the same {speed.batch_rows:.0f} distinct users a batch "
            f"({world.lengths()}), {world.settings.training.corpus_negatives:,} corpus negatives; making the batch is "
            "in both times.",
            "The real fit (Lightning, the world's own examples) encodes a user once for all of their positives, and "
            f"users who convert have longer histories: mean length {speed.fit_length:.1f}.",
        ),
    )

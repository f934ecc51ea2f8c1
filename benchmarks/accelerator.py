"""How much of an accelerator does a training step use, and how many users a second does it encode?

``python -m benchmarks accelerator`` on a machine with a CUDA device: width 256, batches of 8,192 pairs. The step is the
trainer's under bfloat16 autocast, without clipping and schedule; a fit itself is in float32 everywhere. Model FLOP
utilisation is the FLOPs of the matrix products and of attention, forwards and backwards, over the time of a step
with the making of its batch and over the device's peak.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Table, at_least
from benchmarks.world import World
from ml.models.batched_forward import encode_states
from ml.models.item_model import ItemBatch, TwoTower
from ml.models.tensors import CatalogueTensors, to_device
from ml.training.fit import optimizer_of, training_loss
from ml.training.item_task import ItemTask, new_network
from ml.training.sampling import SampledBatch
from settings import Settings

WIDTH, BATCH, CORPUS_NEGATIVES = 256, 8_192, 32_768
STEPS, WARM_UP_STEPS = 20, 3
GOAL = 23  # percent
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12}  # dense bfloat16 FLOP/s, by the data sheets


def run(world: World, console: Console) -> tuple[object, Table]:
    """Measure and print; without a device, the table says so."""
    table = measure(world) if torch.cuda.is_available() else _table([("not measured: no CUDA device", "", "")])
    table.show(console)
    return None, table


def measure(world: World) -> Table:
    """Return the figures of the first CUDA device."""
    device, settings = torch.device("cuda"), wide(world.settings)
    task = ItemTask.of(world.period, world.prepared, settings)
    network = task.network().to(device).train()
    optimizer = optimizer_of(network, settings.training)
    waiting, busy, pairs = 0.0, 0.0, 0
    mark = time.perf_counter()
    for number, batch in enumerate(islice(_forever(task), WARM_UP_STEPS + STEPS)):
        made = time.perf_counter()
        step(task, network, optimizer, to_device(batch, device))
        torch.cuda.synchronize()
        done = time.perf_counter()
        if number >= WARM_UP_STEPS:
            waiting, busy, pairs = waiting + made - mark, busy + done - made, pairs + len(batch.weight)
        mark = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        step(task, network, optimizer, to_device(batch, device))
    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAKS.items() if part in name), float("nan"))
    used = 100 * counter.get_total_flops() * STEPS / (waiting + busy) / peak
    return _table(
        [
            ("device", name, ""),
            ("pairs/s", f"{pairs / (waiting + busy):,.0f}", ""),
            ("time waiting for data", f"{waiting / (waiting + busy):.1%}", ""),
            ("model FLOP utilisation", f"{used:.1f}%", at_least(used, GOAL, " %")),
            ("users/s, from the event log to states", f"{users_a_second(world, device):,.0f}", ""),
        ]
    )


def wide(settings: Settings) -> Settings:
    """Return the settings of the measured step."""
    model = settings.model.model_copy(update={"width": WIDTH})
    training = settings.training.model_copy(update={"batch_size": BATCH, "corpus_negatives": CORPUS_NEGATIVES})
    return settings.model_copy(update={"model": model, "training": training})


def step(
    task: ItemTask, network: TwoTower, optimizer: torch.optim.Optimizer, batch: SampledBatch[ItemBatch]
) -> torch.Tensor:
    """Take one step in bfloat16, and return its loss."""
    optimizer.zero_grad()
    with torch.autocast(batch.weight.device.type, torch.bfloat16):
        loss = training_loss(task, network, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def users_a_second(world: World, device: torch.device) -> float:
    """Return how many users of the world are encoded a second in bfloat16, the second of two times."""
    dataset, slices = world.prepared.dataset, world.everyone()
    network = new_network(dataset, wide(world.settings)).to(device)
    settings = world.settings.inference.model_copy(update={"bfloat16": True})
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        encode_states(network, CatalogueTensors(dataset.features), dataset.log, slices=slices, settings=settings)
        seconds.append(time.perf_counter() - started)
    return len(slices) / float(np.min(seconds))


def _forever(task: ItemTask) -> Iterator[SampledBatch[ItemBatch]]:
    batches = task.batches()
    while True:
        yield from batches
        batches.epoch += 1


def _table(rows: list[tuple[str, str, str]]) -> Table:
    return Table(
        f"An accelerator: width {WIDTH}, batches of {BATCH:,}, bfloat16",
        ("what", "measured", "target"),
        tuple(rows),
        (),
    )

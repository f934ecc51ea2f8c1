"""How many users a second does the encoder take: in fp32 and in bf16? And does bf16 give the same states?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import Table, at_least
from benchmarks.world import World
from ml.features.event_log import batches_by_length, pack
from ml.models.batched_forward import encode_states
from ml.models.encoders import EventBatch
from ml.models.item_model import TwoTower
from ml.models.tensors import CatalogueTensors
from ml.training.item_task import new_network
from settings import InferenceSettings

ROUNDS = 5


@dataclass(frozen=True)
class InferenceSpeed:
    """Users a second (medians over rounds that alternate), and the agreement of bf16 with fp32."""

    users: int
    encoder: float
    encoder_bfloat16: float
    whole: float  # ml.models.batched_forward.encode_states: gathering the batches included
    whole_bfloat16: float
    lowest_cosine: float


def run(world: World, console: Console) -> tuple[InferenceSpeed, Table]:
    """Measure and print."""
    speed = measure(world)
    table = table_of(speed, world)
    table.show(console)
    return speed, table


def measure(world: World) -> InferenceSpeed:
    """Measure every user of the world, once in each way a round, with the ways in turn."""
    dataset, slices = world.prepared.dataset, world.everyone()
    network = new_network(dataset, world.settings).eval()
    catalogue = CatalogueTensors(dataset.features)
    settings = world.settings.inference
    half = settings.model_copy(update={"bfloat16": True})
    batches = [
        catalogue.events(pack(dataset.log, slices.take(rows)))
        for rows in batches_by_length(slices.lengths, settings.batch_tokens)
    ]

    def whole(settings: InferenceSettings) -> NDArray[np.float32]:
        return encode_states(network, catalogue, dataset.log, slices=slices, settings=settings)

    ways: dict[str, Callable[[], object]] = {
        "encoder": lambda: encode(network, batches, bfloat16=False),
        "encoder_bfloat16": lambda: encode(network, batches, bfloat16=True),
        "whole": lambda: whole(settings),
        "whole_bfloat16": lambda: whole(half),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: len(slices) / float(np.median(times[1:])) for name, times in seconds.items()}
    return InferenceSpeed(users=len(slices), lowest_cosine=float(cosines(whole(settings), whole(half)).min()), **rates)


@torch.inference_mode()
def encode(network: TwoTower, batches: Sequence[EventBatch], bfloat16: bool) -> None:
    """Run the encoder alone, on batches that are ready."""
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network.encoder(batch)


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows [rows, W]; rows of zeros count as equal."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-30), 1.0)


def table_of(speed: InferenceSpeed, world: World) -> Table:
    """Return the figures beside their targets."""
    return Table(
        "Inference, users a second",
        ("what", "fp32", "target", "bf16", "target "),
        (
            (
                "encoder only",
                f"{speed.encoder:,.0f}",
                at_least(speed.encoder, 12_000),
                f"{speed.encoder_bfloat16:,.0f}",
                at_least(speed.encoder_bfloat16, 14_000),
            ),
            ("from the event log to states", f"{speed.whole:,.0f}", "", f"{speed.whole_bfloat16:,.0f}", ""),
            (
                "lowest cosine between the two",
                "",
                "",
                f"{speed.lowest_cosine:.6f}",
                at_least(speed.lowest_cosine, 0.9999),
            ),
        ),
        (f"{speed.users:,} users, {world.lengths()}; median of {ROUNDS} rounds that alternate; untrained weights.",),
        {
            "encoder, users/s, float32": f"{speed.encoder:,.0f}",
            "encoder, users/s, bfloat16": f"{speed.encoder_bfloat16:,.0f}",
        },
    )

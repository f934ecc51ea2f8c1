"""The engine of one machine: one part after the other, in this process, and trainings in new processes."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.engine import SHARED_GRADIENTS, Member, Part, Rows, Stage, Training, Work
from engine.worker_processes import wait_for, worker_processes


class LocalEngine:
    """Runs parts in this process."""

    def require_processes(self, processes: int) -> None:
        """Do nothing: more processes than cores are slow, and train all the same."""

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Rows:
        """Return the rows of all parts, in the order of the parts."""
        return _rows(stage(), parts)

    def at_once(self) -> int:
        """Return 1: one part after the other."""
        return 1

    def train(self, training: Training, processes: int, directory: Path) -> None:
        """Run ``training`` in so many new processes, which end with it."""
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns of ``find_unused_parameters``
        with tempfile.TemporaryDirectory() as meeting, worker_processes(processes) as pool:
            file = Path(meeting, "store")
            wait_for([pool.submit(_train, training, rank, processes, meeting=file) for rank in range(processes)])

    def figures(self) -> dict[str, str | int]:
        """Return no figure: there is no cluster."""
        return {}


def _train(training: Training, rank: int, processes: int, *, meeting: Path) -> None:
    """Meet the other processes at a file, because a port might be taken meanwhile, and train."""
    import torch.distributed
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{processes}"}  # which Lightning reads
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    os.environ |= zip(["GLOO_SOCKET_IFNAME"], loopback, strict=False)  # else gloo listens on the network
    kind, backend = ("gpu", "nccl") if torch.cuda.device_count() >= processes else ("cpu", "gloo")
    if kind == "gpu":
        torch.cuda.set_device(rank)
    # Not by the file's URL: torch decodes none, so that a space in it would be another file.
    store = torch.distributed.FileStore(str(meeting), processes)  # type: ignore[attr-defined]
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=processes)

    def options() -> dict[str, Any]:
        group = {"strategy": DDPStrategy(**SHARED_GRADIENTS), "plugins": [TorchElasticEnvironment()]}
        return {"accelerator": kind, "devices": processes, **group}

    training(Member(rank, processes, options))
    torch.distributed.destroy_process_group()


def _rows(work: Work[Part], parts: Sequence[Part]) -> Rows:
    for part in parts:
        yield from work(part)

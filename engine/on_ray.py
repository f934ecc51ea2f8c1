"""The engine of a cluster: each part is a task of Ray, and its rows come back through Ray's object store.

A task whose process or machine dies runs again, a few times. A task that raises ends the stage with its error. A
training is a group of workers of Ray Train.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa

from engine.engine import (
    AFTER_A_DEATH,
    SHARED_GRADIENTS,
    EngineFailed,
    Member,
    Part,
    Rows,
    Stage,
    Training,
    Work,
    lost_connection,
)

ANSWER_SECONDS = 5.0
AHEAD = 2  # parts that wait or run, a core of the cluster: more would only fill the object store
RETRIES = 5  # of a part whose process or machine dies: memory that does not suffice once may not suffice ever
# A core runs one task, so that a second thread would be in another task's way.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")

_made: dict[str, Work[Any]] = {}  # in a process of the cluster: the work of the newest stage, by the stage's name


class RayEngine:
    """Runs parts as tasks of a Ray cluster.

    Attributes:
        ray: the module, so that no other module imports it.
        dashboard: the address of Ray's own pages; empty without any.
    """

    def __init__(self, ray: Any, address: str, dashboard: str) -> None:
        self.ray, self.address, self.dashboard = ray, address, dashboard

    @classmethod
    @cache
    def connected(cls, address: str) -> RayEngine:
        """Return the engine of the cluster at ``address`` (``host:port``).

        A process connects to one cluster, and stays connected until ``close`` or its end.

        Raises:
            EngineFailed: Ray is not installed, or no cluster answers at the address.
        """
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # a cluster asks for a token, and Ray's driver sends none
        try:
            import ray
        except ImportError as error:
            raise EngineFailed(
                "engine.kind is ray, and Ray is not installed. Install adseq-candidates[ray], or set "
                "ADSEQ_ENGINE__KIND=local."
            ) from error
        host, _, port = address.rpartition(":")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()  # Ray itself would try for minutes
            with _own_signals():
                context = ray.init(address, runtime_env={"env_vars": ONE_THREAD}, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise EngineFailed(
                f"The Ray cluster at {address} cannot be used ({_first_line(error)}). Start one (`make cluster` starts "
                "two nodes on this machine), make this machine a node of it (`ray start --address=...`), correct "
                "ADSEQ_ENGINE__ADDRESS or the token (RAY_AUTH_TOKEN_PATH), or set ADSEQ_ENGINE__KIND=local."
            ) from error
        return cls(ray, address, context.dashboard_url or "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a process that is handed the engine connect itself."""
        return RayEngine.connected, (self.address,)

    def close(self) -> None:
        """Leave the cluster; another call of ``connected`` connects again."""
        self.ray.shutdown()
        RayEngine.connected.cache_clear()

    def require_processes(self, processes: int) -> None:
        """Raise ``EngineFailed`` if the cluster has fewer cores, because Ray would wait for more."""
        if processes > (cores := self._cores()):
            raise EngineFailed(
                f"{processes} processes cannot train on {cores} cores. Add nodes, or lower ADSEQ_TRAINING__PROCESSES, "
                "which begins a training anew."
            )

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Rows:
        """Return the rows of all parts, in the order of the parts.

        Closing them cancels the parts that wait or run.

        Raises:
            EngineFailed: a part has died ``RETRIES + 1`` times, or the cluster has gone.
        """
        task = self.ray.remote(_rows).options(max_retries=RETRIES)
        name, held = uuid4().hex, self.ray.put(stage)
        waiting = enumerate(parts, start=1)

        def begun(number: int) -> Iterator[tuple[int, Any]]:
            return ((place, task.remote(name, held, part)) for place, part in islice(waiting, max(0, number)))

        running = deque(begun(AHEAD * self._cores()))
        try:
            while running:
                place, answer = running[0]
                for table in self._answer(answer, f"Part {place} of {len(parts)}"):
                    yield pl.DataFrame(table)
                running.popleft()
                running.extend(begun(AHEAD * self._cores() - len(running)))  # a node may have joined
        finally:
            for _, left in running:
                self.ray.cancel(left)

    def at_once(self) -> int:
        """Return the number of cores of the cluster."""
        return self._cores()

    def train(self, training: Training, processes: int, directory: Path) -> None:
        """Run ``training`` in so many workers of Ray Train; raise what it raises.

        Raises:
            EngineFailed: the cluster has too few cores, or a worker or the cluster has gone.
        """
        from ray.train import RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        self.require_processes(processes)
        own_files = directory.resolve() / f".ray-{uuid4().hex}"  # else Ray Train writes to the user's home
        gpus = self.ray.cluster_resources().get("GPU", 0) >= processes
        trainer = TorchTrainer(
            lambda: training(_member()),
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpus),
            run_config=RunConfig(name="training", storage_path=str(own_files)),
        )
        try:
            with _own_signals():
                trainer.fit()
        except SystemExit as stopped:  # Ray's answer to Ctrl-C
            raise KeyboardInterrupt from stopped
        except (TrainingFailedError, self.ray.exceptions.RayError) as error:
            failures = list(getattr(error, "worker_failures", {}).values())
            if own := own_error(failures):
                raise own from error  # as in this process
            raise EngineFailed(
                f"A worker of the training died, or the cluster has gone ({_first_line([*failures, error][0])}). "
                f"{AFTER_A_DEATH} A node of fewer cores runs fewer workers."
            ) from error
        finally:
            shutil.rmtree(own_files, ignore_errors=True)

    def figures(self) -> dict[str, str | int]:
        """Return the nodes, the cores and the dashboard of the cluster."""
        nodes = sum(node["Alive"] for node in self.ray.nodes())
        pages = {"ray_dashboard": self.dashboard} if self.dashboard else {}
        return {"ray_nodes": nodes, "ray_cores": self._cores(), **pages}

    def _answer(self, task: Any, part: str) -> list[pa.Table]:
        try:
            found: list[pa.Table] = self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error  # as in this process
        except self.ray.exceptions.RayError as error:
            raise EngineFailed(
                f"{part} of the stage died {RETRIES + 1} times, or the cluster has gone ({_first_line(error)}). "
                "Nothing was committed. A node needs, for each of its cores, ADSEQ_DATA__MEMORY_GIB and memory for the "
                "model and the catalogue: give a node fewer cores, or lower ADSEQ_DATA__MEMORY_GIB or "
                "ADSEQ_DATA__BUCKET_EVENTS."
            ) from error
        return found

    def _cores(self) -> int:
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))


def _rows(name: str, stage: Stage[Part], part: Part) -> list[pa.Table]:
    """Return the rows of a part, in a process of the cluster. The process keeps the work of its newest stage.

    The rows are one object: a part that runs again need not cut its rows where it cut them before.
    """
    if name not in _made:
        _made.clear()
        _made[name] = stage()
    return [rows.to_arrow() for rows in _made[name](part)]


def _member() -> Member:
    """Return this worker of Ray Train."""
    from ray.train import get_context, lightning
    from ray.train.torch import get_device

    def options() -> dict[str, Any]:
        train: Any = lightning  # has no types
        strategy, here = train.RayDDPStrategy(**SHARED_GRADIENTS), [train.RayLightningEnvironment()]
        return {"accelerator": "gpu" if get_device().type == "cuda" else "cpu", "strategy": strategy, "plugins": here}

    return Member(get_context().get_world_rank(), get_context().get_world_size(), options)


def own_error(failures: Collection[Exception]) -> Exception | None:
    """Return what the training itself raised in a worker; None if a worker or its machine died.

    Ray reports a dead worker by an error of its own, or not at all if the others end first, because their connections
    to the dead worker end.
    """
    if any(type(each).__module__.startswith("ray.") for each in failures):
        return None
    return next((each for each in failures if not lost_connection(each)), None)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process' own handling of SIGTERM and SIGINT, which Ray replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)

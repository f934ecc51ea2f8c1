"""The engine of a cluster: each part is a task of Ray, and its rows come back through Ray's object store.

A task whose process or machine dies runs again. A task that raises ends the stage, with the error of the task.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa

from engine.engine import Part, Stage, Work

ANSWER_SECONDS = 5.0
AHEAD = 2  # parts that wait or run, a core of the cluster: more would only fill the object store
# A core runs one task, so that a second thread would be in another task's way.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")

_made: dict[str, Work[Any]] = {}  # in a process of the cluster: the work of the newest stage, by the stage's name


class RayMissing(RuntimeError):
    """The settings ask for Ray, and Ray is not installed, or no cluster answers."""


class RayEngine:
    """Runs parts as tasks of a Ray cluster.

    Attributes:
        ray: the module, so that no other module imports it.
        dashboard: the address of Ray's own pages; empty without any.
    """

    def __init__(self, ray: Any, dashboard: str) -> None:
        self.ray, self.dashboard = ray, dashboard

    @classmethod
    @cache
    def connected(cls, address: str) -> RayEngine:
        """Return the engine of the cluster at ``address`` (``host:port``).

        A process connects once, and stays connected until it ends.

        Raises:
            RayMissing: Ray is not installed, or no cluster answers at the address.
        """
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # a cluster asks for a token, and Ray's driver sends none
        try:
            import ray
        except ImportError as error:
            raise RayMissing(
                "engine.kind is ray, and Ray is not installed. Install adseq-candidates[ray], or set "
                "ADSEQ_ENGINE__KIND=local."
            ) from error
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()  # Ray itself would try for minutes
            context = ray.init(address, runtime_env={"env_vars": ONE_THREAD}, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise RayMissing(
                f"No Ray cluster answers at {address}, or it refuses this machine's token. Start one (`make cluster` "
                "starts two nodes on this machine), correct ADSEQ_ENGINE__ADDRESS or RAY_AUTH_TOKEN_PATH, or set "
                "ADSEQ_ENGINE__KIND=local."
            ) from error
        return cls(ray, context.dashboard_url or "")

    def run(self, stage: Stage[Part], parts: Sequence[Part]) -> Iterator[pl.DataFrame]:
        """Return the rows of all parts, in the order of the parts.

        Parts that wait or run when the caller stops asking are cancelled.
        """
        task = self.ray.remote(_rows).options(num_returns="streaming", max_retries=-1)
        name, held = uuid4().hex, self.ray.put(stage)
        waiting = iter(parts)

        def begun(number: int) -> Iterator[Any]:
            return (task.remote(name, held, part) for part in islice(waiting, max(0, number)))

        running = deque(begun(AHEAD * self._cores()))
        try:
            while running:
                for rows in running[0]:
                    yield pl.DataFrame(self.ray.get(rows))
                running.popleft()
                running.extend(begun(AHEAD * self._cores() - len(running)))  # a node may have joined
        finally:
            for left in running:
                self.ray.cancel(left)

    def figures(self) -> dict[str, str | int]:
        """Return the nodes, the cores and the dashboard of the cluster."""
        nodes = sum(node["Alive"] for node in self.ray.nodes())
        return {"ray_nodes": nodes, "ray_cores": self._cores(), "ray_dashboard": self.dashboard}

    def _cores(self) -> int:
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))


def _rows(name: str, stage: Stage[Part], part: Part) -> Iterator[pa.Table]:
    """Yield the rows of a part, in a process of the cluster. The process keeps the work of its newest stage."""
    if name not in _made:
        _made.clear()
        _made[name] = stage()
    for rows in _made[name](part):
        yield rows.to_arrow()

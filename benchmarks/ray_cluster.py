"""A Ray cluster on 127.0.0.1 whose nodes are added and killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Ray reads them when it is imported. A process that a test starts inherits the token of the test's cluster.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())

import ray as ray

from engine.on_ray import RayEngine

OBJECT_STORE_BYTES = 150 * 2**20
SECONDS = 60  # within which a node starts on a busy machine


@dataclass
class Cluster:
    """Nodes of one core each; the first is the head."""

    address: str
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_node(self) -> None:
        """Start a node."""
        host, port = self.address.split(":")
        head = ["--head", "--port", port, "--include-dashboard", "false"]
        place = ["--address", self.address] if self.nodes else head
        limits = ["--num-cpus", "1", "--object-store-memory", str(OBJECT_STORE_BYTES)]
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--node-ip-address", host]
        self.nodes.append(
            subprocess.Popen(
                list(map(str, [*command, *place, *limits, "--disable-usage-stats"])),
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def kill_node(self) -> None:
        """Kill every process of the newest node."""
        node = self.nodes.pop()
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def living(self) -> int:
        """Return the number of nodes that the cluster takes for living."""
        return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]

    def wait_for(self, nodes: int) -> None:
        """Return when the cluster has so many living nodes."""
        end = time.monotonic() + SECONDS
        while self.living() != nodes:
            assert time.monotonic() < end, f"the cluster has not {nodes} nodes after {SECONDS} s"
            time.sleep(0.1)


@contextmanager
def running(nodes: int) -> Iterator[tuple[Cluster, RayEngine]]:
    """Yield a cluster with so many nodes, and its engine in this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        cluster = Cluster(f"127.0.0.1:{free.getsockname()[1]}")
    try:
        cluster.add_node()
        engine = _connected(cluster)
        for _ in range(nodes - 1):
            cluster.add_node()
        cluster.wait_for(nodes)
        with closing(engine):
            yield cluster, engine
    finally:
        while cluster.nodes:
            cluster.kill_node()


def _connected(cluster: Cluster) -> RayEngine:
    end = time.monotonic() + SECONDS
    while True:
        try:
            return RayEngine.connected(cluster.address)
        except RuntimeError:
            assert time.monotonic() < end, "the head does not answer"
            time.sleep(0.5)

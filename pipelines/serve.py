"""``adseq serve``: the candidate service on one home, until Ctrl-C."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pipelines.failures import RunRefused
from settings import Settings
from warehouse.home import Home
from warehouse.online import open_store
from warehouse.online.publication import served_whole

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CONNECTIONS = 2048  # of a process, idle ones too. What cannot be answered in time is refused by serving.shedding


def serve_candidates(home: Home, host: str, port: int, processes: int, console: Console) -> None:
    """Serve in this process, or in several that share the port.

    Raises:
        RunRefused: others could reach the service and there is no token.
        StoreUnreachable: the online store does not answer, or lacks what its sign promises.
    """
    import uvicorn

    from serving.app import TOKEN_VARIABLE

    if host not in LOOPBACK and not os.environ.get(TOKEN_VARIABLE):
        raise RunRefused(
            f"{host} can be reached by others, and what users did is not for everybody: set {TOKEN_VARIABLE} to a "
            "secret, which callers send as `Authorization: Bearer SECRET`, or serve on 127.0.0.1."
        )
    os.environ["ADSEQ_HOME"] = str(home.root)
    store = open_store(Settings().online.store, home)
    try:
        publication = served_whole(store)
    finally:
        store.close()
    console.print(
        f"Candidates at http://{host}:{port}/candidates, described at http://{host}:{port}/docs. Ctrl-C stops."
    )
    if publication is None:
        console.print("Nothing is published yet: the service answers 503 until a day has run (adseq run).")
    with _shared_metrics(processes):
        uvicorn.run(
            "serving.app:app_of_environment",
            factory=True,
            host=host,
            port=port,
            workers=processes,
            # uvloop takes in one new connection a round, and under load a round is long.
            loop="asyncio",
            limit_concurrency=CONNECTIONS,
            log_level="warning",
            access_log=False,  # a request's log line is of no use without the user, who shall not be in it
        )


@contextmanager
def _shared_metrics(processes: int) -> Iterator[None]:
    """A directory in which several processes keep their figures together; one alone keeps them in memory."""
    if processes == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="adseq-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield

"""``adseq serve``: the candidate service on one home, until Ctrl-C."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape

from pipelines.cli.errors import RunRefused
from settings import Settings
from warehouse.home import Home
from warehouse.item_trainings import why_nothing_published
from warehouse.online import open_store
from warehouse.online.publication import served_whole
from warehouse.tables import Tables

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve_candidates(home: Home, host: str, port: int, *, processes: int, console: Console) -> None:
    """Serve in this process, or in several that share the port.

    Raises:
        RunRefused: others could reach the service and there is no token, the settings name a generator that cannot be
            used, or the address is not available.
        StoreUnreachable: the online store does not answer, or lacks records that its pointer promises.
    """
    from serving.app import TOKEN_VARIABLE
    from serving.connections.processes import Workers, WorkersFailed
    from serving.connections.server import serve_on
    from serving.generator_plugins import GeneratorRefused
    from serving.propose import Proposers

    if host not in LOOPBACK and not os.environ.get(TOKEN_VARIABLE):
        raise RunRefused(
            f"{host} can be reached by others, and the answers show the behaviour of users. Set {TOKEN_VARIABLE} to a "
            "secret, which callers send as `Authorization: Bearer SECRET`, or serve on 127.0.0.1."
        )
    os.environ["ADSEQ_HOME"] = str(home.root)
    try:
        Proposers.of(Settings().serving).close()
    except GeneratorRefused as error:
        raise RunRefused(str(error)) from error
    store = open_store(Settings().online.store, home)
    try:
        publication = served_whole(store)
    finally:
        store.close()
    listening = _bound(host, port)
    console.print(
        f"Candidates at http://{host}:{port}/candidates, described at http://{host}:{port}/docs. Ctrl-C stops."
    )
    if publication is None:
        why = why_nothing_published(Tables(home.tables))
        console.print(f"{escape(why)} The service answers 503.", highlight=False, soft_wrap=True)
    if processes == 1:
        with suppress(KeyboardInterrupt):
            serve_on(listening)
        return
    with _shared_metrics():
        try:
            Workers(listening, processes, Settings().serving.grace_seconds).run()
        except WorkersFailed as error:
            raise RunRefused(str(error)) from error


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that has the address and does not listen yet.

    Raises:
        RunRefused: the address is not available.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise RunRefused(
            f"The service cannot listen on {host}, port {port}: {error.strerror or error}. Choose another with --port, "
            "or stop the program that has it."
        ) from error
    return bound


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Give several processes one directory for the figures of all of them."""
    with tempfile.TemporaryDirectory(prefix="adseq-metrics-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield

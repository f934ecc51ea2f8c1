"""The process that forks the processes of ``tests/processes.py``: it imports what takes seconds and uses nothing of it.

Threads do not survive a fork, so nothing may start one before: no table is read, no tensor is multiplied.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import logging
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import configure_mappers

LIBRARIES = (
    "dagster",
    "dataframely",
    "deltalake",
    "duckdb",
    "faiss",
    "fastapi",
    "lightning.pytorch",
    "lmdb",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "optuna",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "redis",
    "sklearn.cluster",
    "torch",
    "uvicorn",
)
FOUND_LATE = (
    "PIL.PngImagePlugin",
    "alembic.command",
    "dagster._core.execution.execute_in_process",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.workspace.context",
    "dagster._daemon.daemon",
    "git",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.system_metrics.system_metrics_monitor",
    "mlflow.tracing.export",
    "networkx",
    "rich.traceback",
    "sqlalchemy.dialects.sqlite",
    "structlog",
    "torch._export.serde.serialize",
    "torch._functorch.partitioners",
    "torch.export._trace",
    "torch.export.pt2_archive",
    "watchdog.observers",
)
"""What libraries import when they are used. Where another version has no module of the name, it is imported then."""

PACKAGES = ("warehouse", "ml", "serving")
NOT_MISSED = ("jemalloc_bg_thd", "polars-ooc-clea")
"""Threads that imports start and that a forked process does without: they give memory and spilled files back early."""


def main() -> None:
    """Serve; in a process that was forked, run what was asked for."""
    work = _serve(int(sys.argv[1]), Path(sys.argv[2]))
    work()


def _serve(descriptor: int, address: Path) -> Callable[[], None]:
    """Fork whenever asked to. Return in the forked processes, with their work; this process ends here."""
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor that tells of its end: process and asker
    listening = socket.socket(fileno=descriptor)
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)  # closes when the tests end
        imported = False
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    _end(children, address)
                if key.fd in children:
                    selector.unregister(key.fd)
                    _tell_end(key.fd, *children.pop(key.fd))
                    continue
                connection, _ = listening.accept()
                if not imported:
                    _import_everything()
                    _do_once(address.parent / "mlflow.db")
                    imported = True
                request, streams = _received(connection)
                pid = os.fork()
                if not pid:
                    for each in (listening, connection, *(asker for _, asker in children.values())):
                        each.close()
                    for end in children:
                        os.close(end)
                    return lambda: _become(request, streams)
                for stream in streams:
                    os.close(stream)
                with suppress(BrokenPipeError):
                    connection.sendall(pid.to_bytes(8, "big", signed=True))
                ends = os.pidfd_open(pid)
                children[ends] = pid, connection
                selector.register(ends, selectors.EVENT_READ)


def _import_everything() -> None:
    from ml.figures import style

    for name in LIBRARIES:
        importlib.import_module(name)
    for package in PACKAGES:
        paths = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(paths, f"{package}."):
            importlib.import_module(module.name)
    for name in FOUND_LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    configure_mappers()  # of MLflow's tables: half a second
    importlib.import_module("pipelines.cli.app")
    style.RESOLUTION = 30  # figures are drawn in every flow, and no test looks at one that a process has drawn
    # Some modules of the assets read the home or its settings when they are imported: each process does so for itself.
    assert "assets" not in sys.modules
    threads = {task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    missed = threads - {Path("/proc/self/comm").read_text().strip(), *NOT_MISSED}
    assert not missed, f"imports have started {missed}, which a forked process would lack"
    gc.freeze()  # so that no collection copies the pages of what was imported


def _do_once(database: Path) -> None:
    """Do what each process would do anew: MLflow lists what is installed, and migrates an empty database.

    The fifty migrations take two seconds. A process of its own does them, because Alembic sets up the logging. Dagster
    makes an engine for each event, and every engine compiles each statement: here a file of events keeps its engine.
    """
    from dagster._core.storage.event_log.sqlite import sqlite_event_log as event_log
    from mlflow.store.db import utils as databases
    from mlflow.utils import requirements_utils as requirements

    migrate = databases._initialize_tables
    pid = os.fork()
    if not pid:
        try:
            logging.getLogger("mlflow").setLevel(logging.ERROR)
            migrate(create_engine(f"sqlite:///{database}"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "MLflow's database could not be made"
    databases._initialize_tables = lambda engine: _copy_database(database, Path(engine.url.database))
    requirements._init_packages_to_modules_map()
    engines: dict[str, Engine] = {}
    make = vars(event_log)["create_engine"]
    vars(event_log)["create_engine"] = lambda url, **how: engines.get(url) or engines.setdefault(url, make(url, **how))


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as full, closing(sqlite3.connect(target)) as empty:
        full.backup(empty)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return what is asked for, and the standard streams."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    return json.loads(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)), streams


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Be ``python -u -c CODE ARGUMENTS``."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stdout = sys.__stdout__ = _unbuffered(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _unbuffered(2)  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = ["-c", *request["arguments"]]
    code = 0
    try:
        exec(compile(request["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # What Python does at its end, except that it takes no module apart: that takes half a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(code & 0xFF)


def _unbuffered(descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)


def _tell_end(ends: int, pid: int, asker: socket.socket) -> None:
    os.close(ends)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError, ConnectionResetError):
        asker.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    asker.close()


def _end(children: dict[int, tuple[int, socket.socket]], address: Path) -> None:
    for pid, _ in children.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(address.parent)
    os._exit(0)

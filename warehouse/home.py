"""The places of all data of one adseq home, and the lock that keeps the home to one writer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

HOLDER = "lock.holder.json"
LANDING_POINTER = "landing.path"
"""A file of the home: the path of its landing zone, relative to the home where the landing zone is inside it."""


class HomeLocked(RuntimeError):
    """Another process writes to this home."""


@dataclass(frozen=True)
class Home:
    """The directories under one root (``ADSEQ_HOME``)."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.expanduser().absolute())

    @property
    def landing(self) -> Path:
        """Return the landing zone: ``landing`` under the home, unless ``use_landing`` pointed the home elsewhere."""
        pointer = self.root / LANDING_POINTER
        return self.root / pointer.read_text().strip() if pointer.is_file() else self.root / "landing"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def relevance(self) -> Path:
        """Return the directory of the relevance models, one a day of training."""
        return self.root / "relevance"

    @property
    def indexes(self) -> Path:
        return self.root / "indexes"

    @property
    def online(self) -> Path:
        """Return the directory of the embedded online store."""
        return self.root / "online"

    @property
    def served(self) -> Path:
        """Return the directory of the catalogues that the service reads."""
        return self.root / "served"

    @property
    def views(self) -> Path:
        return self.root / "warehouse.duckdb"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.root / "mlflow" / "artifacts"

    def create(self) -> Home:
        """Make the directories that other tools expect. Only the owner of the home may read the home."""
        self.make_root()
        for directory in (self.tables, self.models, self.indexes, self.dagster, self.artifacts):
            directory.mkdir(parents=True, exist_ok=True)
        return self

    def use_landing(self, landing: Path) -> None:
        """Read the landing zone at ``landing`` from now on. A landing zone inside the home moves with the home."""
        self.make_root()
        chosen = landing.expanduser().absolute()
        if chosen.is_relative_to(self.root):
            chosen = chosen.relative_to(self.root)
        write_atomically(self.root / LANDING_POINTER, f"{chosen}\n".encode())

    def make_root(self) -> None:
        """Make the directory of the home. A new or empty directory is closed to group and world."""
        if not self.root.exists():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not any(self.root.iterdir()):
            self.root.chmod(0o700)

    @contextmanager
    def writing(self, purpose: str) -> Iterator[None]:
        """Hold the home's write lock.

        Raises:
            HomeLocked: another process holds it; the message names the process, its purpose and its start.
        """
        self.make_root()
        lock, holder = FileLock(self.root / "lock"), self.root / HOLDER
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise HomeLocked(_who_holds(self.root, holder)) from None
        try:
            write_atomically(
                holder,
                json.dumps(
                    {
                        "pid": os.getpid(),
                        "host": socket.gethostname(),
                        "purpose": purpose,
                        "since": datetime.now(UTC).isoformat(timespec="seconds"),
                    }
                ).encode(),
            )
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def writer(self) -> str | None:
        """Return a sentence on the process that writes to the home now; None where no process does.

        The lock is left alone: a process that begins meanwhile would find it taken.
        """
        holder = self.root / HOLDER
        try:
            who = json.loads(holder.read_text())
            if who["host"] == socket.gethostname():
                os.kill(who["pid"], 0)
        except PermissionError:  # it lives, and is another user's
            return _who_holds(self.root, holder)
        except (OSError, ValueError, KeyError, TypeError):  # nobody, or a process that was killed
            return None
        return _who_holds(self.root, holder)


def _who_holds(root: Path, holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
    except (OSError, json.JSONDecodeError):
        return f"{root} is being written by another process that has just started. Try again when it is done."
    return (
        f"{root} is being written by process {who['pid']} on {who['host']} ({who['purpose']}, since {who['since']}). "
        "Wait for it, or stop it; a home has one writer at a time."
    )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

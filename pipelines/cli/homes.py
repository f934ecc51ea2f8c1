"""The home that a command names: there already, or to be made."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.cli.errors import RunRefused
from warehouse.home import Home
from warehouse.home_record import RECORD_FILE

WRITTEN = (".", "tables", "models", "indexes", "dagster", "mlflow", "online", "lock")
"""What a command that writes needs to write, where it exists."""


def existing_home(root: Path) -> Home:
    """Return the home at ``root``. Writes nothing.

    Raises:
        RunRefused: there is no home at ``root``.
    """
    home = _directory(root)
    if not home.root.is_dir():
        raise RunRefused(f"{home.root} does not exist: give the --home of an earlier `adseq run`.")
    _require(home.root, os.R_OK | os.X_OK, "read")
    if not (home.root / RECORD_FILE).is_file() and not home.tables.is_dir():
        raise RunRefused(
            f"{home.root} is not a home of adseq: {RECORD_FILE} and tables are missing. Name the home with --home."
        )
    return home


def writable_home(root: Path) -> Home:
    """Return the home at ``root``, which need not exist yet. Writes nothing.

    Raises:
        RunRefused: the home cannot be made, or cannot be written.
    """
    home = _directory(root)
    if not home.root.exists():
        parent = next(each for each in home.root.parents if each.exists())
        _require(parent, os.W_OK | os.X_OK, "write")
    for name in WRITTEN:
        path = home.root / name
        if path.exists():
            _require(path, os.W_OK | (os.X_OK if path.is_dir() else 0), "write")
    return home


def _directory(root: Path) -> Home:
    home = Home(root)
    for path in (home.root, *home.root.parents):
        if path.exists() and not path.is_dir():
            raise RunRefused(f"{path} is a file, and a home is a directory: give another --home.")
    return home


def _require(path: Path, mode: int, what: str) -> None:
    if not os.access(path, mode):
        raise RunRefused(
            f"This user may not {what} {path}, or its file system is read-only: change the owner or the mode, or give "
            "another --home."
        )

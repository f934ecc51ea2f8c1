"""Whether the databases of MLflow and Dagster open, and the champion is a version that exists."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from pipelines.checks.fault import Checked, Fault, Part
from warehouse.remedies import BACKUP


def database_part(checked: Checked) -> Part:
    """Run SQLite's own check on every database of the home."""
    files = sorted([*(checked.home.root / "mlflow").glob("*.db"), *checked.home.dagster.rglob("*.db")])
    faults = [fault for path in files for fault in _integrity(path)]
    return Part("databases", f"{len(files)} files of MLflow and Dagster", faults)


def registry_part(checked: Checked) -> Part:
    """Check that the alias ``champion`` names a version whose directory and artefacts exist."""
    path = checked.home.root / "mlflow" / "mlflow.db"
    if not path.is_file():
        lost = [Fault(f"{path} is missing", BACKUP)] if any(checked.home.models.glob("item-*")) else []
        return Part("registered models", "none", lost)
    try:
        with closing(_opened(path)) as database:
            models = database.execute("SELECT name, version, storage_location FROM model_versions").fetchall()
            aliases = database.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall()
    except sqlite3.Error as error:
        return Part("registered models", str(path), [Fault(f"{path} cannot be read ({error})", BACKUP)])
    faults, notes = [], []
    for name, version, location in models:
        artefacts = Path(unquote(urlparse(location or "").path))
        if location and not artefacts.is_relative_to(checked.home.root):
            notes = [f"the home was moved from {artefacts}; the next command that writes lets the addresses follow"]
        elif location and not (artefacts / "MLmodel").is_file():
            faults.append(Fault(f"{artefacts / 'MLmodel'} of version {version} of {name!r} is missing", BACKUP))
    known = {(name, str(version)) for name, version, _ in models}
    for name, alias, version in aliases:
        if (name, str(version)) not in known:
            what = f"{path}: the alias {alias!r} of {name!r} names version {version}, which is not registered"
            faults.append(Fault(what, "adseq run --retrain, or `adseq rollback` to another version"))
    return Part("registered models", f"{len(models)} versions, {len(aliases)} aliases", faults, notes)


def _integrity(path: Path) -> Iterator[Fault]:
    try:
        with closing(_opened(path)) as database:
            said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield Fault(f"{path} is damaged ({said})", BACKUP)


def _opened(path: Path) -> sqlite3.Connection:
    """Return a connection that writes nothing, not even the files that SQLite keeps beside a database with a log.

    Where such a log is there, another process has the database open, and the log is part of the database.
    """
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.is_file() and log.stat().st_size else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)

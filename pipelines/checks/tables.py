"""Whether every Delta table opens, and every data file of its newest version is there, whole and readable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.checks.fault import Checked, Fault, Part
from warehouse.contracts import LandingTable
from warehouse.day_records import LANDED_FILES, read_records
from warehouse.delta_log import LOG, damaged_commits, missing_versions
from warehouse.identity import IDENTITIES
from warehouse.remedies import BACKUP, SET_ASIDE, command_for_day, is_dispensable, spelt
from warehouse.tables import TableDamaged, Tables


def tables_part(checked: Checked) -> Part:
    """Check all tables: commits and sizes and footers of data files; with ``deep`` every row."""
    names = _names(checked)
    faults: list[Fault] = []
    files = rows = 0
    for name in names:
        found, here, inside = _table(checked, name)
        faults, files, rows = faults + found, files + here, rows + inside
    faults += _absent(checked, names)
    how = "every row read" if checked.deep else "sizes and footers; every row: --deep"
    return Part("tables", f"{len(names)} tables, {files:,} files, {rows:,} rows ({how})", faults)


def _names(checked: Checked) -> list[str]:
    root = checked.home.tables
    return sorted(path.name for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))


def _absent(checked: Checked, names: list[str]) -> list[Fault]:
    """Return a fault for each missing table that the home has ingested."""
    if not names:
        return []
    day = checked.history_day
    remedy = command_for_day(str(day)) if day else "adseq run"
    wanted = [*_ingested(checked.tables), IDENTITIES, LANDED_FILES]
    return [Fault(f"table {name!r} is missing", f"{remedy}, and {BACKUP}") for name in wanted if name not in names]


def _ingested(tables: Tables) -> list[str]:
    """Return the landing tables that were ingested; none where the records cannot be read, which is a fault itself.

    A home from before a landing table came to be has no such table until its next day.
    """
    try:
        recorded = {record.table for record in read_records(tables)}
    except (TableDamaged, pl.exceptions.PolarsError, OSError):
        return []
    return [table.value for table in LandingTable if table in recorded]


def _table(checked: Checked, name: str) -> tuple[list[Fault], int, int]:
    """Return the faults, the number of data files and the number of rows of one table."""
    path = checked.tables.path(name)
    if faults := _log_faults(checked, path):
        return faults, 0, 0
    try:
        table = DeltaTable(str(path))
        actions = pa.table(table.get_add_actions(flatten=False)).to_pylist()
    except (DeltaError, OSError) as error:
        said = str(error).splitlines()[0]
        return [Fault(f"table {name!r}: {path / LOG} cannot be read ({said})", BACKUP)], 0, 0
    faults, rows = [], 0
    for action in actions:
        file = path / unquote(action["path"])
        partition = _partition(action)
        count, fault = _rows(file, action["size_bytes"], checked.deep)
        rows += count
        if fault is not None:
            faults.append(Fault(f"table {name!r}, {spelt(partition)}: {file} {fault}", checked.remedy(name, partition)))
    return faults, len(actions), rows


def _log_faults(checked: Checked, path: Path) -> list[Fault]:
    if not (path / LOG).is_dir():
        return [Fault(f"table {path.name!r}: {path / LOG} is missing", BACKUP)]
    faults = [
        Fault(f"table {path.name!r}: the commits {missing_versions(path)} of {path / LOG} are missing", BACKUP)
        for _ in missing_versions(path)[:1]
    ]
    for commit in damaged_commits(path):
        written = commit.partition if commit.newest else None
        remedy = SET_ASIDE if is_dispensable(path.name, written) else checked.remedy(path.name, written)
        faults.append(Fault(f"table {path.name!r}: the commit {commit.path} is damaged ({commit.why})", remedy))
    return faults


def _partition(action: Mapping[str, Any]) -> dict[str, str]:
    values = action.get("partition") or action.get("partition_values") or {}
    return {column: str(value) for column, value in values.items()}


def _rows(file: Path, size: int, deep: bool) -> tuple[int, str | None]:
    """Return the number of rows of a data file, and the fault of the file or None."""
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        return 0, "is missing"
    except OSError as error:
        return 0, f"cannot be read ({error.strerror})"
    if found != size:
        return 0, f"has {found:,} bytes and not {size:,}"
    try:
        with pq.ParquetFile(file) as parquet:
            rows = parquet.metadata.num_rows
            if deep and rows != sum(batch.num_rows for batch in parquet.iter_batches()):
                return 0, f"does not hold the {rows:,} rows that its footer names"
    except (pa.ArrowException, OSError) as error:
        return 0, f"is damaged ({str(error).splitlines()[0]})"
    return int(rows), None

"""The commits of a Delta table as files: the damaged commits, and the partition that each of them wrote."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LOG = "_delta_log"
COMMIT = re.compile(r"\d{20}\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
LogStamp = tuple[tuple[str, int, int, int], ...]
# What a commit tells about itself. delta-rs' own writer tells the numbers among its metrics.
ADDED_FILES, REMOVED_FILES, PREDICATE = "num_added_files", "num_removed_files", "predicate"
_EQUAL = re.compile(r"(\w+) = '([^']*)'")
_DATA_FILE = re.compile(r'"path":"([^"]+\.parquet)"')


@dataclass(frozen=True)
class DamagedCommit:
    """A commit that cannot be read, or that has lost a part."""

    path: Path
    why: str
    # What the commit replaced, as text: {} for a vacuum, which replaces nothing; None where nothing tells it.
    partition: Mapping[str, str] | None
    newest: bool


def damaged_commits(table: Path) -> list[DamagedCommit]:
    """Return the damaged commits on which the newest version of ``table`` rests, oldest first."""
    commits = _commits(table)
    found = []
    for path in commits:
        why = _fault(path)
        if why is not None:
            found.append(DamagedCommit(path, why, _partition(table, path, commits), path == commits[-1]))
    return found


def newest_commit_fault(table: Path) -> str | None:
    """Return a description of the fault of the newest commit of ``table``; None for a whole commit or for no commit.

    delta-rs reads past an empty commit, and past a commit that lost its last lines, without an error.
    """
    commits = _commits(table)
    return _fault(commits[-1]) if commits else None


def log_stamp(table: Path) -> LogStamp:
    """Return the name, the inode, the size and the time of each file of a table's log, in name order.

    The stamp changes with each commit, and when a commit is damaged or taken out.
    """
    log, files = table / LOG, []
    for entry in os.scandir(log) if log.is_dir() else ():
        found = entry.stat()
        files.append((entry.name, found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(sorted(files))


def set_aside(commit: DamagedCommit) -> None:
    """Take the newest commit out of the log and keep its file beside the log.

    The table is then as it was before the commit.
    """
    commit.path.replace(commit.path.with_name(f"{commit.path.name}.damaged"))


def missing_versions(table: Path) -> list[int]:
    """Return the versions between the oldest and the newest commit whose commits are missing."""
    versions = [int(path.stem) for path in _commits(table)]
    return sorted(set(range(versions[0], versions[-1] + 1)) - set(versions)) if versions else []


def _commits(table: Path) -> list[Path]:
    """Return the commits after the newest checkpoint. The checkpoint holds the content of the earlier commits."""
    log = table / LOG
    checkpoints = (CHECKPOINT.fullmatch(path.name) for path in log.glob("*.parquet"))
    since = max((int(match[1]) for match in checkpoints if match), default=-1)
    commits = sorted(path for path in log.glob("*.json") if COMMIT.fullmatch(path.name))
    return [path for path in commits if int(path.stem) > since]


def _fault(path: Path) -> str | None:
    """Return a description of the fault of a commit; None for a whole commit."""
    try:
        actions = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        return str(error)
    if not actions:
        return "it is empty"
    said: Mapping[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    told = {**said, **(said.get("operationMetrics") or {})}
    for action, name in (("add", ADDED_FILES), ("remove", REMOVED_FILES)):
        here, wanted = sum(action in each for each in actions), str(told.get(name, ""))
        if wanted.isdecimal() and int(wanted) != here:
            return f"it holds {here} of {wanted} actions `{action}`"
    return None


def _partition(table: Path, commit: Path, commits: list[Path]) -> Mapping[str, str] | None:
    """Return the partition that a damaged commit replaced; {} for a vacuum, None where nothing tells the partition.

    The partition is read from the rest of the commit, or from the data files that no other commit names and that are
    younger than the commit before: older ones are of stages that died.
    """
    left = commit.read_text(errors="replace")
    if '"operation":"VACUUM' in left:
        return {}
    first = left.partition("\n")[0]
    if told := dict(_EQUAL.findall(first.partition(f'"{PREDICATE}"')[2].partition('"}')[0].partition('",')[0])):
        return told
    if named := {_values(path) for path in _DATA_FILE.findall(left)}:
        return dict(named.pop()) if len(named) == 1 else None
    known = {unquote(path) for other in commits if other != commit for path in _DATA_FILE.findall(_text(other))}
    before = max((other.stat().st_mtime for other in commits if other < commit), default=0.0)
    strangers = {_values(path) for path, written in _data_files(table) if path not in known and written >= before}
    return dict(strangers.pop()) if len(strangers) == 1 else None


def _values(path: str) -> tuple[tuple[str, str], ...]:
    parts = (part.partition("=") for part in path.split("/")[:-1])
    return tuple((column, unquote(value)) for column, _, value in parts)


def _data_files(table: Path) -> Iterator[tuple[str, float]]:
    """Yield the data files that are there, and when each was written (seconds since 1970)."""
    for path in table.rglob("*.parquet"):
        if LOG not in path.parts:
            yield unquote(path.relative_to(table).as_posix()), path.stat().st_mtime


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

"""The contents of a landing zone by name: the days that are read, and each unread folder and file, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path

from warehouse.contracts import LandingTable
from warehouse.landing import (
    FILES_OF_THE_ROOT,
    FIRST_DAY,
    HISTORY,
    LAST_DAY,
    MANIFEST,
    WRITTEN_BY_THE_SERVICE,
    Landing,
    day_of_folder,
    is_being_written,
    shown,
)

COMPLETE_MARK = "_SUCCESS"
_TABLE_NAMES = [table.value for table in LandingTable]
_NEARLY_A_DAY = re.compile(r"([0-9]{4})[^0-9]?([0-9]{1,2})[^0-9]?([0-9]{1,2})[^0-9]*")
_NO_FILE = "it is not a file: a link to nothing, or a device; replace it by the file"
_UNDERSCORE = f"a name that begins with _ is not data ({COMPLETE_MARK} marks a complete day); rename it"


@dataclass(frozen=True)
class Unread:
    """A folder or file of a landing zone that nothing reads.

    Attributes:
        path: the folder or file; below an unread folder nothing is read, and nothing is named again.
        reason: why, and what to do, without a closing full stop.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.reason}"


@dataclass(frozen=True)
class Listing:
    """A landing zone, listed once.

    Attributes:
        days: the arrival days that are read, ascending.
        unread: in the order of their paths.
    """

    days: tuple[date, ...]
    unread: tuple[Unread, ...]


def list_landing(landing: Landing) -> Listing:
    """List a landing zone; a missing zone is empty. Read only names, never the content of a file."""
    days = tuple(landing.dates())
    unread = list(_unread(landing, days)) if landing.root.is_dir() else []
    return Listing(days, tuple(unread))


def _unread(landing: Landing, days: tuple[date, ...]) -> Iterator[Unread]:
    for path in sorted(landing.root.iterdir()):
        if is_being_written(path.name):
            continue
        if path.name in _TABLE_NAMES and path.is_dir():
            yield from _unread_of_table(path, landing.recorded_history_day, days)
        elif path.name not in FILES_OF_THE_ROOT or not path.is_file():
            yield Unread(path, _why_not_a_table(path))


def _unread_of_table(table: Path, history_day: date | None, days: tuple[date, ...]) -> Iterator[Unread]:
    for path in sorted(table.iterdir()):
        if is_being_written(path.name) or path.name == COMPLETE_MARK:
            continue
        day = day_of_folder(path.name)
        if not path.exists():
            yield Unread(path, _NO_FILE)
        elif not path.is_dir():
            yield Unread(path, f"rows lie in a folder of their arrival; move it into {table.name}/date=YYYY-MM-DD/")
        elif path.name != HISTORY and day is None:
            yield Unread(path, _why_not_a_day(path.name))
        elif day is not None and history_day is not None and day <= history_day:
            yield Unread(path, on_or_before_history(history_day))
        elif table.name in WRITTEN_BY_THE_SERVICE and days and day is not None and day < days[-1] and day not in days:
            yield Unread(
                path, f"no log of {day} has landed; make its folder in events, or move the files to a later day"
            )
        else:
            yield from _unread_of_arrival(path)


def on_or_before_history(history_day: date) -> str:
    """Return why a daily folder that is dated on or before the history's day is not read, and what to do."""
    return (
        f"this home's history counts as arrived on {history_day}, and no later arrival is dated on or before that day; "
        "move its files into the folder of a newer day, where late events take their place by event_time"
    )


def _unread_of_arrival(folder: Path) -> Iterator[Unread]:
    for path in sorted(folder.iterdir()):
        if is_being_written(path.name) or path.name == COMPLETE_MARK:
            continue
        if path.is_dir():
            yield Unread(path, f"folders below a day are not read; move its files into {folder.name}/")
        elif not path.is_file():
            yield Unread(path, _NO_FILE)
        elif path.name.startswith("_"):
            yield Unread(path, _UNDERSCORE)


def _why_not_a_table(path: Path) -> str:
    if not path.is_dir():
        return f"beside the tables only {MANIFEST} is read; put rows into <table>/date=YYYY-MM-DD/"
    meant = get_close_matches(path.name.strip().lower(), _TABLE_NAMES, n=1)
    advice = f"rename it to {meant[0]}" if meant else f"the tables are {', '.join(_TABLE_NAMES)}"
    return f"no table has this name; {advice}"


def _why_not_a_day(name: str) -> str:
    if re.fullmatch(r"date=[0-9]{4}-[0-9]{2}-[0-9]{2}", name):
        return f"{name.removeprefix('date=')} is not a day between {FIRST_DAY} and {LAST_DAY}; correct the name"
    if get_close_matches(name.strip().lower(), [HISTORY], n=1):
        return f"no arrival has this name; rename it to {HISTORY}"
    nearly = _NEARLY_A_DAY.search(name)
    if nearly is not None:
        meant = "date={:0>4}-{:0>2}-{:0>2}".format(*nearly.groups())
        if day_of_folder(meant) is not None:
            return f"a day's folder is named date=YYYY-MM-DD; rename it to {meant}"
    return f"a folder of a table is named {HISTORY} or date=YYYY-MM-DD; rename it"

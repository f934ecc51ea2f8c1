"""Which days of a home are due: those that have not run, and those that were made of other files than there are now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from warehouse.arrival_days import listing_of
from warehouse.day_records import DayStanding, history_changes, standings
from warehouse.home import Home
from warehouse.landed_files import FileChange
from warehouse.landing import Landing
from warehouse.listing import Unread
from warehouse.tables import Tables


@dataclass(frozen=True)
class OutOfDate:
    """A day that ran on other arrivals than there are now.

    Attributes:
        day: the arrival day.
        changes: of its own files; empty where only an earlier day's arrivals differ.
        made_of: the chain of arrivals that its next run is made of: another one for every state of the landing zone.
    """

    day: date
    changes: tuple[FileChange, ...]
    made_of: str

    def __str__(self) -> str:
        if not self.changes:
            return f"{self.day} is out of date: an earlier day's arrivals are others than when it ran."
        return f"{self.day} is out of date, because after it ran: {'; '.join(map(str, self.changes))}."


@dataclass(frozen=True)
class Standing:
    """A home against its landing zone.

    Attributes:
        out_of_date: of the days that ran, ascending.
        history: files of the history that came, changed or went after it was ingested.
        unread: folders and files that nothing reads.
    """

    out_of_date: tuple[OutOfDate, ...]
    history: tuple[FileChange, ...]
    unread: tuple[Unread, ...]


def standing_of(home: Home, done: Collection[date], new_days: Sequence[date] = ()) -> Standing:
    """Compare the files that the days ran on with the files in the landing zone.

    Args:
        home: the home; its tables record the files of each day.
        done: the days that have run to their end before.
        new_days: days that are about to run for the first time: the days after them are out of date.
    """
    tables, landing = Tables(home.tables), Landing(home.landing)
    recorded = [each for each in standings(tables, landing, new_days) if each.day in done]
    return Standing(
        out_of_date=tuple(_out_of_date(each) for each in recorded if not each.up_to_date),
        history=tuple(history_changes(tables, landing)),
        unread=listing_of(tables, landing).unread,
    )


def _out_of_date(standing: DayStanding) -> OutOfDate:
    return OutOfDate(standing.day, standing.changes, standing.made_of)

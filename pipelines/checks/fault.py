"""What a check found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from warehouse.arrival_days import landing_of
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.remedies import BACKUP, RECORDS, command_for_day, remedy
from warehouse.tables import Tables


@dataclass(frozen=True)
class Fault:
    """A broken part, and the remedy."""

    what: str  # names the file
    remedy: str  # the command that makes it again, or what else to do


@dataclass(frozen=True)
class Part:
    """One part of a home."""

    name: str
    looked_at: str
    faults: Sequence[Fault] = ()
    notes: Sequence[str] = ()  # what is not broken and should be known


@dataclass(frozen=True)
class Checked:
    """The home that is checked."""

    home: Home
    deep: bool  # whether all rows are read

    @property
    def tables(self) -> Tables:
        return Tables(self.home.tables)

    @cached_property
    def landing(self) -> Landing:
        """Return the landing zone as the home reads it."""
        return landing_of(self.tables, Landing(self.home.landing))

    @property
    def history_day(self) -> date | None:
        return self.landing.recorded_history_day

    @cached_property
    def landed(self) -> frozenset[date]:
        """Return the days that a daily run can make again."""
        return frozenset(self.landing.dates())

    def remedy(self, table: str, partition: Mapping[str, str] | None) -> str:
        """Return the command or the advice that makes a partition of a table again.

        Args:
            partition: column -> value, as text; None where nobody knows which partition is damaged.
        """
        if table in RECORDS or partition is None:
            return BACKUP
        if "arrival_date" in partition:
            return self._remedy_of_arrival(date.fromisoformat(partition["arrival_date"]))
        return self.remedy_of_day(partition["day"]) if "day" in partition else remedy(table, partition)

    def remedy_of_day(self, day: str) -> str:
        """Return the command that makes a day's results again: its run, or a training where no file of the day came."""
        if day in {str(landed) for landed in self.landed}:
            return command_for_day(day)
        return "adseq run --retrain (a new model version has states and an index of its own)"

    def _remedy_of_arrival(self, day: date) -> str:
        """Return the remedy that ingests an arrival again.

        Without the day's folders an ingestion would leave an empty arrival; the remedy is then a backup or new files.
        """
        of_landing = None if day == self.history_day else day
        folders = [self.landing.folder(table, of_landing) for table in LandingTable]
        if any(folder.is_dir() for folder in folders):
            return command_for_day(str(day))
        return f"{BACKUP}, or put {folders[0].name} back into {self.landing.root} and {command_for_day(str(day))}"

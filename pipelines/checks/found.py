"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from warehouse.home import Home
from warehouse.home_record import HomeRecord
from warehouse.landing import Landing
from warehouse.remedies import BACKUP, DAY_COLUMNS, RECORDS, command_for_day
from warehouse.tables import Tables


@dataclass(frozen=True)
class Fault:
    """Something broken."""

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
    def landed(self) -> frozenset[date]:
        """The days that a daily run can make again."""
        return frozenset(Landing(self.home.landing).dates())

    @cached_property
    def history_day(self) -> date | None:
        record = HomeRecord.read(self.home)
        return record.history_day if record else None

    def remedy(self, table: str, partition: dict[str, str]) -> str:
        """Return what makes a partition of a table again.

        Args:
            partition: column -> value, as text.
        """
        if table in RECORDS:
            return BACKUP
        days = [partition[column] for column in DAY_COLUMNS if column in partition]
        if not days:
            return "adseq run --retrain"
        if "arrival_date" in partition and days[0] == str(self.history_day):
            return command_for_day(days[0])
        return self.remedy_of_day(days[0])

    def remedy_of_day(self, day: str) -> str:
        """Return what makes the results of a day again: its run, or a training where no files of the day landed."""
        if day in {str(landed) for landed in self.landed}:
            return command_for_day(day)
        return "adseq run --retrain (a new model version has states and an index of its own)"

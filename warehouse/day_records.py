"""The files that each day was made of, so that a file that comes, changes or goes after its day ran is noticed.

Table ``landed_files`` has a row for each arrival day of each landing table: the files that were ingested, the version
of that set, and the chain of the arrivals before it. A chain is a digest over a day's versions and the chain before:
two equal chains mean that everything that arrived up to a day is equal.

A day's output depends on all arrivals up to that day (deduplication, sequences, statistics, states). So table
``completed_days`` keeps the chain that a day's last step was made from. A day whose chain is another one now is out of
date, whether its own files changed or an earlier day's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import groupby
from pathlib import Path

import polars as pl

from warehouse.arrival_days import listing_of, recorded_history_day
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.landed_files import FileChange, LandedFile, changes, digest_of, files_of, version_of
from warehouse.landing import Landing
from warehouse.remedies import OF_DAYS
from warehouse.tables import Tables

LANDED_FILES, COMPLETED_DAYS = "landed_files", "completed_days"
MONTH = "month"  # partition column of both tables: some hundred rows a file, whatever the number of days
_FILE = pl.Struct(
    {
        "name": pl.String(),
        "bytes": pl.Int64(),
        "written_ns": pl.Int64(),
        "changed_ns": pl.Int64(),
        "digest": pl.String(),
    }
)
_ARRIVAL_SCHEMA = {
    "arrival_date": pl.Date(),
    "landing_table": pl.String(),
    "files": pl.List(_FILE),
    "version": pl.String(),
    "after": pl.String(),
}
_COMPLETED_SCHEMA = {"day": pl.Date(), "made_of": pl.String()}
_NOTHING = ""  # the chain before the first arrival


@dataclass(frozen=True)
class ArrivalRecord:
    """One arrival day of one landing table, as it was ingested.

    Attributes:
        files: the files that were read, in name order.
        version: of the files when they were ingested; forgetting a user changes files and not the version.
        after: the chain of the newest earlier day, as it was then.
    """

    table: LandingTable
    day: date
    files: tuple[LandedFile, ...]
    version: str
    after: str


@dataclass(frozen=True)
class DayStanding:
    """A recorded day compared with the present landing zone.

    Attributes:
        day: the arrival day.
        changes: the day's files that came, changed or went after the day ran.
        made_of: the chain that the day has once the day and the days before are up to date.
        up_to_date: whether the day's last ingestion and last whole run were made of that chain.
    """

    day: date
    changes: tuple[FileChange, ...]
    made_of: str
    up_to_date: bool


def set_damaged_records_aside(tables: Tables) -> None:
    """Set damaged newest commits of both tables aside. The days that these commits recorded then run again."""
    for name in OF_DAYS:
        tables.set_damaged_aside(name, lambda _: True)


def record_arrival(tables: Tables, table: LandingTable, day: date, files: Sequence[LandedFile]) -> None:
    """Record the files that the partition of ``day`` was just made of.

    Args:
        files: in their state before they were read, so that a change during the reading is noticed afterwards.
    """
    records = read_records(tables)
    known = next((record for record in records if (record.table, record.day) == (table, day)), None)
    same = known is not None and not changes(Path(), known.files, files)
    version = known.version if known is not None and same else version_of(files)
    _write_records(tables, [ArrivalRecord(table, day, tuple(files), version, _chain_before(records, day))])


def recorded_files(tables: Tables, table: LandingTable, day: date) -> tuple[LandedFile, ...]:
    """Return the files of an arrival at its last ingestion; none where the arrival was never ingested."""
    found = (record.files for record in read_records(tables) if (record.table, record.day) == (table, day))
    return next(found, ())


def record_completed(tables: Tables, day: date) -> None:
    """Record that every step of ``day`` has run on the present arrivals up to that day."""
    made_of = _chain_before(read_records(tables), date.fromordinal(day.toordinal() + 1))
    row = pl.DataFrame([{"day": day, "made_of": made_of}], schema=_COMPLETED_SCHEMA)
    kept = _month_of(tables, COMPLETED_DAYS, day, _COMPLETED_SCHEMA).filter(pl.col("day") != day)
    tables.write(COMPLETED_DAYS, pl.concat([kept, row]).sort("day"), {MONTH: _month(day)})


def completed_days(tables: Tables) -> set[date]:
    """Return the days of which every step has run, be it on other arrivals than there are now."""
    return set(_completed(tables))


def recorded_days(tables: Tables) -> list[date]:
    """Return the days whose arrival had at least one file when the day was ingested, ascending; not the history."""
    history = recorded_history_day(tables)
    return sorted({record.day for record in read_records(tables) if record.files and record.day != history})


def landed_days(home: Home) -> list[date]:
    """Return the days that can run, ascending: days with a folder, and days ingested before their folder went."""
    tables = Tables(home.tables)
    return sorted({*listing_of(tables, Landing(home.landing)).days, *recorded_days(tables)})


def standings(tables: Tables, landing: Landing, new_days: Collection[date] = ()) -> list[DayStanding]:
    """Compare each day that was ever ingested, except the history, with the landing zone.

    Args:
        tables: of the home.
        landing: of the home.
        new_days: days that are about to be ingested; the days after them are not up to date.
    """
    history, records = recorded_history_day(tables), read_records(tables)
    by_day = {day: list(group) for day, group in groupby(records, key=lambda record: record.day)}
    completed = _completed(tables)
    found, chain = [], _NOTHING
    for day in sorted({*by_day, *new_days}):
        known = by_day.get(day, [])
        differing, versions = _against_landing(landing, known, None if day == history else day)
        # A day may have been ingested from other arrivals, and killed, since it was completed on those that there are.
        ingested_so = not differing and {record.after for record in known} == {chain}
        chain = _chain({chain}, versions)
        if known and day != history:
            up_to_date = ingested_so and completed.get(day) == chain
            found.append(DayStanding(day, tuple(differing), chain, up_to_date))
    return found


def history_changes(tables: Tables, landing: Landing) -> list[FileChange]:
    """Return the history's files that came, changed or went after the history was ingested."""
    history = recorded_history_day(tables)
    known = [record for record in read_records(tables) if record.day == history]
    return _against_landing(landing, known, None)[0] if known else []


def chain_of(tables: Tables, day: date) -> str:
    """Return the chain of everything that had arrived by ``day``, as the home ingested it."""
    return _chain_before(read_records(tables), date.fromordinal(day.toordinal() + 1))


def chains_by_day(tables: Tables) -> dict[date, str]:
    """Return for each recorded day, including the history's, the chain of everything that had arrived by that day."""
    by_day = groupby(read_records(tables), key=lambda record: record.day)
    return {day: _recorded_chain(list(group)) for day, group in by_day}


def unsettled_days(tables: Tables) -> set[date]:
    """Return the recorded days that were ingested before the arrivals of an earlier day changed."""
    found: set[date] = set()
    chain = _NOTHING
    for day, group in groupby(read_records(tables), key=lambda record: record.day):
        of_day = list(group)
        if found or any(record.after != chain for record in of_day):
            found.add(day)
        chain = _recorded_chain(of_day)
    return found


def untouched_files(tables: Tables, landing: Landing) -> set[Path]:
    """Return the landing files that have not changed since they were ingested."""
    history, found = recorded_history_day(tables), set()
    for record in read_records(tables):
        day = None if record.day == history else record.day
        folder = landing.folder(record.table, day)
        now = files_of(landing, record.table, day, record.files)
        differing = {change.path for change in changes(folder, record.files, now)}
        found |= {folder / file.name for file in now} - differing
    return found


def adopt_arrivals(tables: Tables, landing: Landing, history: date | None) -> None:
    """Record the present files of each arrival that was ingested before homes recorded files, and its day as completed.

    For the migration of a home: a file that changed before the migration stays unnoticed.

    Args:
        history: the day that the history counts as; None where none was ingested.
    """
    for day in tables.days(LandingTable.events.value, "arrival_date"):
        for table in LandingTable:
            record_arrival(tables, table, day, files_of(landing, table, None if day == history else day, ()))
        if day != history:
            record_completed(tables, day)


def record_rewritten(tables: Tables, landing: Landing, paths: Collection[Path]) -> None:
    """Record rewritten files without making their days out of date.

    The rows that left the files were removed from the tables, too.

    Args:
        paths: files that were as they were ingested until they were rewritten.
    """
    history, rewritten = recorded_history_day(tables), []
    for record in read_records(tables):
        day = None if record.day == history else record.day
        folder = landing.folder(record.table, day)
        if any(folder / file.name in paths for file in record.files):
            now = {file.name: file for file in files_of(landing, record.table, day, record.files)}
            files = [now.get(file.name, file) if folder / file.name in paths else file for file in record.files]
            rewritten.append(replace(record, files=tuple(files)))
    _write_records(tables, rewritten)


def read_records(tables: Tables) -> list[ArrivalRecord]:
    """Return the records of all arrivals, by day."""
    if not tables.exists(LANDED_FILES):
        return []
    rows = tables.scan(LANDED_FILES).sort("arrival_date", "landing_table").collect()
    return [
        ArrivalRecord(
            table=LandingTable(row["landing_table"]),
            day=row["arrival_date"],
            files=tuple(LandedFile(**file) for file in row["files"]),
            version=row["version"],
            after=row["after"],
        )
        for row in rows.iter_rows(named=True)
    ]


def _write_records(tables: Tables, records: Sequence[ArrivalRecord]) -> None:
    """Replace the records of some arrivals, a commit a month."""
    for month, group in groupby(sorted(records, key=lambda record: record.day), key=lambda record: _month(record.day)):
        written = list(group)
        rows = [
            {
                "arrival_date": record.day,
                "landing_table": record.table.value,
                "files": [asdict(file) for file in record.files],
                "version": record.version,
                "after": record.after,
            }
            for record in written
        ]
        frame = pl.DataFrame(rows, schema=_ARRIVAL_SCHEMA)
        before = _month_of(tables, LANDED_FILES, written[0].day, _ARRIVAL_SCHEMA)
        kept = before.join(frame, on=["arrival_date", "landing_table"], how="anti")
        tables.write(LANDED_FILES, pl.concat([kept, frame]).sort("arrival_date", "landing_table"), {MONTH: month})


def _against_landing(
    landing: Landing, known: Sequence[ArrivalRecord], day: date | None
) -> tuple[list[FileChange], list[tuple[str, str]]]:
    """Return the changes of a day's files, and the version that each of the day's tables would have if ingested now."""
    differing, versions = [], []
    for table in LandingTable:
        record = next((record for record in known if record.table is table), None)
        before = record.files if record else ()
        now = files_of(landing, table, day, before)
        found = changes(landing.folder(table, day), before, now)
        differing += found
        versions.append((table.value, record.version if record and not found else version_of(now)))
    return differing, versions


def _chain_before(records: Iterable[ArrivalRecord], day: date) -> str:
    """Return the chain of the newest day before ``day`` that has a record."""
    earlier = [record for record in records if record.day < day]
    newest = max((record.day for record in earlier), default=None)
    last = [record for record in earlier if record.day == newest]
    return _recorded_chain(last) if last else _NOTHING


def _recorded_chain(of_day: Sequence[ArrivalRecord]) -> str:
    """Return the chain of one day. ``of_day`` has at least one record."""
    versions = [(record.table.value, record.version) for record in of_day]
    return _chain({record.after for record in of_day}, versions)


def _chain(after: Collection[str], versions: Iterable[tuple[str, str]]) -> str:
    """Return the chain of a day.

    A day without a file adds nothing to the chain before, if all its tables were ingested after one chain.

    Args:
        after: the chains that its tables were ingested after: one, unless an earlier day ran in between.
        versions: of its tables, by name; empty text for a table without a file.
    """
    arrived = sorted((table, version) for table, version in versions if version)
    if not arrived and len(after) == 1:
        return next(iter(after))
    return digest_of([*sorted(after), *(part for pair in arrived for part in pair)])


def _completed(tables: Tables) -> dict[date, str]:
    if not tables.exists(COMPLETED_DAYS):
        return {}
    return dict(tables.scan(COMPLETED_DAYS).select("day", "made_of").collect().iter_rows())


def _month(day: date) -> str:
    return f"{day:%Y-%m}"


def _month_of(tables: Tables, name: str, day: date, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    if not tables.exists(name):
        return pl.DataFrame(schema=schema)
    return tables.read(name, {MONTH: _month(day)}).select(list(schema)).cast(schema)  # type: ignore[arg-type]

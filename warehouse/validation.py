"""What a landing zone holds, before anything runs: what is good, what would be quarantined and why, what is missing and
what that costs. Nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from settings import DataSettings
from warehouse.contracts import KEYS, LandingTable
from warehouse.identity import UserKeys
from warehouse.ingest import check_arrival, day_end, day_of_arrival, embedding_width
from warehouse.landing import Landing
from warehouse.reading import LandingError, read_arrival
from warehouse.tables import Tables

NEVER = datetime.max.replace(tzinfo=UTC)
# What a log does without, by table and column (None: the whole table).
COSTS: dict[tuple[LandingTable, str | None], str] = {
    (LandingTable.items, None): "items are known by what users did with them only: no category, no price, no title",
    (
        LandingTable.items,
        "category",
    ): "no categories: no interests, so that a search finds nothing; new items start blank",
    (LandingTable.items, "embedding"): "no content embedding: content comes from what is engaged with together",
    (LandingTable.items, "title"): "no titles: people see ids, and a search matches the names of categories only",
    (LandingTable.items, "price"): "no prices: no filter by price, and one trait less of every item",
    (LandingTable.items, "advertiser_id"): "items of no advertiser: the advertiser model has only what events name",
    (LandingTable.items, "availability"): "what is sold out is shown like the rest",
    (LandingTable.users, None): "no demographics: the head goes without them",
    (LandingTable.impressions, None): "no logged context: the context report stands on a basket proxy",
    (LandingTable.events, "item_id"): "no items in events: there is no item model",
    (
        LandingTable.events,
        "advertiser_id",
    ): "events name no advertiser: it is taken from the item, and signups have none",
    (LandingTable.events, "value"): "no values: a checkout is a checkout, whatever it was worth",
}


@dataclass
class Verdict:
    """One table."""

    table: LandingTable
    files: int = 0
    rows: int = 0
    good: int = 0
    repeated: int = 0  # good rows whose key another one has, in whatever arrival
    broken: Counter[str] = field(default_factory=Counter)  # rows by the first rule that each breaks
    examples: dict[str, str] = field(default_factory=dict)  # rule -> file and row
    unreadable: list[str] = field(default_factory=list)  # messages, a file each
    ignored_columns: set[str] = field(default_factory=set)
    filled: Counter[str] = field(default_factory=Counter)  # good rows with a value, by column
    mostly_broken: list[str] = field(default_factory=list)  # arrivals that would stop a run

    @property
    def missing(self) -> list[str]:
        """What the log goes without, in words."""
        if not self.good:
            return [text for text in (COSTS.get((self.table, None)),) if text]
        return [
            text
            for (table, column), text in COSTS.items()
            if table is self.table and column and not self.filled[column]
        ]


@dataclass(frozen=True)
class Validation:
    """A landing zone."""

    verdicts: dict[LandingTable, Verdict]
    days: int  # that land one by one
    first_event: str | None
    last_event: str | None
    by_name: dict[str, int]  # good events
    positives: int
    problems: tuple[str, ...]  # each of which would stop a run


def validate(landing: Landing, settings: DataSettings) -> Validation:
    """Read everything as ingestion would.

    Raises:
        ManifestError: manifest.toml breaks a rule.
    """
    manifest, dates = landing.manifest, landing.dates()
    verdicts = {table: Verdict(table) for table in LandingTable}
    events: list[pl.DataFrame] = []
    for table, verdict in verdicts.items():
        keys: list[pl.DataFrame] = []
        width: int | None = None
        for day in [None, *dates]:
            latest = NEVER
            if dates:
                end = day_end(day_of_arrival(landing, day), manifest.time_zone)
                latest = end + timedelta(hours=settings.future_tolerance_hours)
            before = (verdict.rows, verdict.good)
            for path in landing.files(table, day):
                verdict.files += 1
                try:
                    arrival = read_arrival(path, table)
                    if table is LandingTable.items and width is None:
                        width = embedding_width(_NOTHING, [arrival])
                    judged = check_arrival(arrival, table, latest, landing.root, _NOBODY, width)
                except LandingError as error:
                    verdict.unreadable.append(str(error))
                    continue
                accepted = judged.accepted
                verdict.rows += judged.rows
                verdict.good += len(accepted)
                verdict.ignored_columns |= set(judged.ignored_columns)
                verdict.filled.update({name: len(accepted) - accepted[name].null_count() for name in accepted.columns})
                for rule, file, row in judged.rejected.select("rule", "file", "row").iter_rows():
                    verdict.broken[rule] += 1
                    verdict.examples.setdefault(rule, f"{file}, row {row}")
                keys.append(accepted.select(KEYS[table]))
                if table is LandingTable.events:
                    events.append(accepted.select("event_name", "event_time"))
            rows, good = verdict.rows - before[0], verdict.good - before[1]
            if rows and (rows - good) / rows > settings.maximum_quarantine_share:
                verdict.mostly_broken.append(f"{table.value} of {day or 'the history'}: {(rows - good) / rows:.1%}")
        # Of items and users a newer row is a newer version; of events and impressions it is the same one again.
        if table in (LandingTable.events, LandingTable.impressions) and keys:
            together = pl.concat(keys)
            verdict.repeated = together.height - together.n_unique()
    happened = (
        pl.concat(events) if events else pl.DataFrame(schema={"event_name": pl.String, "event_time": pl.Datetime})
    )
    by_name = dict(happened["event_name"].value_counts(sort=True).iter_rows())
    positives = sum(count for name, count in by_name.items() if name in manifest.positive_events)
    days = happened["event_time"].dt.strftime("%Y-%m-%d").sort()
    return Validation(
        verdicts=verdicts,
        days=len(dates),
        first_event=days[0] if len(days) else None,
        last_event=days[-1] if len(days) else None,
        by_name=by_name,
        positives=positives,
        problems=tuple(_problems(landing, verdicts, positives, settings)),
    )


_NOTHING = Tables(Path("/nonexistent"))
_NOBODY = UserKeys(b"nothing is written")


def _problems(
    landing: Landing, verdicts: dict[LandingTable, Verdict], positives: int, settings: DataSettings
) -> list[str]:
    problems = [message for verdict in verdicts.values() for message in verdict.unreadable]
    bound = f"more than {settings.maximum_quarantine_share:.1%} of the rows break a rule"
    problems += [f"{text} ({bound})" for verdict in verdicts.values() for text in verdict.mostly_broken]
    if not landing.dates():
        problems.append(
            f"{landing.root} has no folder named date=YYYY-MM-DD in any table: put the newest day's rows into one, "
            "e.g. events/date=2026-01-31/"
        )
    if not verdicts[LandingTable.events].good:
        problems.append("there are no events")
    elif not positives:
        names = ", ".join(landing.manifest.positive_events)
        problems.append(f"no event is one of {names}: say in manifest.toml what counts (positive_events)")
    return problems

"""The contents of a landing zone, judged before anything runs. Nothing is written.

The verdict names good rows, rows that would be quarantined and why, and missing parts and their costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from settings import DataSettings
from warehouse.ad_status import unknown_statuses
from warehouse.arrival_days import history_dated_by, why_not_past
from warehouse.availability import unknown_words
from warehouse.contracts import MAXIMUM_TIME, VERSIONED, LandingTable
from warehouse.days import day_end
from warehouse.identity import UserKeys
from warehouse.ingest.arrival import latest_event
from warehouse.ingest.read import Arrival, LandingError, read_arrival
from warehouse.ingest.validate_rows import NOT_AFTER_ARRIVAL, Judged, LostNumber, Rules, embedding_width, judge
from warehouse.landing import Landing, Manifest
from warehouse.log_figures import log_figures, repeated_rows, stage_columns, stage_nothing
from warehouse.spill import Staging, staging
from warehouse.trainability import (
    TrainingRule,
    advertisers_can_be_learnt,
    count_examples,
    history_figures,
    why_advertisers_alone,
    why_too_few,
)

SHOWN_WORDS = 5
NO_ADVERTISERS = (
    "no conversion names an item, and the advertiser model has nothing to learn from: it needs conversions with an "
    "advertiser_id before the newest prediction window, by users with earlier events."
)
WINDOWS = 3  # that a log should have: two to learn from, one to report on
# What a log goes without where a table is empty, and where a column is.
WITHOUT_TABLE = {
    LandingTable.items: "items are known by what users did with them only: no category, no price, no title",
    LandingTable.users: "no demographics: the head goes without them",
    LandingTable.ads: "no ads: every item that can be shown is eligible, whatever its advertiser pays",
    LandingTable.impressions: "no logged context: the context report stands on a basket proxy",
    LandingTable.relevance_labels: "no labels of raters: no relevance model, and no irrelevant ad is trimmed",
    LandingTable.funnel_sample: "no sample of the service's candidates: raters get candidates of `impressions` only",
    LandingTable.feedback: "no reports of dissatisfaction: raters get no pair because somebody has complained",
}
WITHOUT_COLUMN = {
    LandingTable.events: {
        "item_id": "no items in events: there is no item model",
        "advertiser_id": "events name no advertiser: it is taken from the item, and signups have none",
        "value": "no `value`: every checkout counts the same",
    },
    LandingTable.items: {
        "category": "no categories: no interests, so that a search finds nothing; new items start blank",
        "embedding": "no content embedding: content comes from what is engaged with together",
        "title": "no titles: people see ids, and a search matches the names of categories only",
        "price": "no prices: no filter by price, and one trait less of every item",
        "advertiser_id": "items of no advertiser: the advertiser model has only what events name",
        "availability": "no `availability`: sold-out items are recommended too",
    },
    LandingTable.ads: {
        "bid": "no `bid`: of several ads of one item, the one with the smallest ad_id is shown",
        "daily_budget": "no `daily_budget`: no ad ever runs out of budget",
        "status": "no `status`: every ad counts as active",
    },
    LandingTable.impressions: {
        "propensity": "no `propensity`: no other policy can be estimated from this log",
        "price_paid": "no `price_paid`: the log has no spend, and no daily budget is used up by it",
        "value": "no `value`: conversions have no return on ad spend",
    },
    LandingTable.relevance_labels: {
        "stage": "no `stage`: nothing says how relevance changes through the funnel",
        "inclusion_probability": "no `inclusion_probability`: every label counts the same",
    },
    LandingTable.funnel_sample: {"features": "no `features`: they are computed again, from the catalogue of the day"},
}

_NOBODY = UserKeys(b"nothing is written")


@dataclass
class LandingVerdict:
    """The verdict on one table."""

    table: LandingTable
    files: int = 0
    rows: int = 0
    good: int = 0
    repeated: int = 0  # good rows whose key another one has, in whatever arrival
    broken: Counter[str] = field(default_factory=Counter)  # rows by the first rule that each breaks
    examples: dict[str, str] = field(default_factory=dict)  # rule -> file and row, of what was imported if it was
    lost: dict[str, LostNumber] = field(default_factory=dict)  # by column: good rows that go without a number
    unreadable: list[str] = field(default_factory=list)  # messages, a file each
    ignored_columns: set[str] = field(default_factory=set)
    unknown_availability: Counter[str] = field(default_factory=Counter)  # good rows by a word that nobody knows
    unknown_statuses: Counter[str] = field(default_factory=Counter)  # the same of the status of ads
    filled: Counter[str] = field(default_factory=Counter)  # good rows with a value, by column
    mostly_broken: list[str] = field(default_factory=list)  # arrivals that would stop a run

    @property
    def missing(self) -> list[str]:
        """Return the missing parts of the log, in words."""
        if not self.good:
            return [WITHOUT_TABLE[self.table]] if self.table in WITHOUT_TABLE else []
        columns = WITHOUT_COLUMN.get(self.table, {})
        return [*self._numbers, *(text for column, text in columns.items() if not self.filled[column])]

    @property
    def _numbers(self) -> list[str]:
        return [
            f"{number.rows:,} values of {number.column} are no numbers, e.g. {number.place}: {number.text!r}; these "
            'rows go without (in a mapping, decimal = "." or "," reads numbers as people write them)'
            for number in self.lost.values()
        ]

    @property
    def quarantined(self) -> int:
        """Return the number of rows that break a rule."""
        return self.rows - self.good

    def add(self, judged: Judged) -> None:
        """Count some rows of a file."""
        accepted = judged.accepted
        self.rows += judged.rows
        self.good += len(accepted)
        self.ignored_columns |= set(judged.ignored_columns)
        self.filled.update({name: len(accepted) - accepted[name].null_count() for name in accepted.columns})
        if "availability" in accepted.columns:
            self.unknown_availability.update(unknown_words(accepted["availability"]))
        if "status" in accepted.columns:
            self.unknown_statuses.update(unknown_statuses(accepted["status"]))
        for rule, place in judged.rejected.select("rule", "place").iter_rows():
            self.broken[rule] += 1
            self.examples.setdefault(rule, place)
        for number in judged.lost:
            before = self.lost.get(number.column, number)
            rows = number.rows + (before.rows if number.column in self.lost else 0)
            self.lost[number.column] = replace(before, rows=rows)


@dataclass(frozen=True)
class Validation:
    """The verdict on a landing zone."""

    verdicts: dict[LandingTable, LandingVerdict]
    days: int  # that land one by one
    first_event: str | None
    last_event: str | None
    by_name: dict[str, int]  # good events
    positives: int
    notes: tuple[str, ...]  # what makes answers worse
    problems: tuple[str, ...]  # each of which would stop a run


def validate(landing: Landing, settings: DataSettings, training: TrainingRule | None = None) -> Validation:
    """Read everything as ingestion would.

    Args:
        training: the demands of the first training on the history; None: the first training is not judged.

    Raises:
        ManifestError: manifest.toml breaks a rule.
    """
    manifest = landing.manifest
    with (
        TemporaryDirectory(prefix="adseq-validate-") as directory,
        staging(Path(directory), settings.memory_gib) as staged,
    ):
        verdicts = {table: _judge(landing, table, settings, staged) for table in LandingTable}
        figures = log_figures(staged, manifest.time_zone)
        outlook = TrainingOutlook() if training is None else _outlook(landing, manifest, staged, training)
    positives = sum(count for name, count in figures.by_name.items() if name in manifest.positive_events)
    problems = _problems(landing, verdicts, positives)
    return Validation(
        verdicts=verdicts,
        days=len(landing.dates()),
        first_event=figures.first_day,
        last_event=figures.last_day,
        by_name=figures.by_name,
        positives=positives,
        notes=(
            *_notes(landing, figures.first_day, figures.last_day),
            *figures.notes,
            *_availability_notes(verdicts[LandingTable.items]),
            *_status_notes(verdicts[LandingTable.ads]),
            *outlook.notes,
        ),
        problems=(*problems, *(outlook.problems if positives else ())),
    )


@dataclass(frozen=True)
class TrainingOutlook:
    """The outlook on the first training.

    Attributes:
        problems: the reasons why the training would stop; empty where it would not, or where no day has landed yet.
        notes: the parts that the training would go without.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _outlook(landing: Landing, manifest: Manifest, staged: Staging, training: TrainingRule) -> TrainingOutlook:
    history_day = landing.history_day()
    if history_day is None:
        return TrainingOutlook()
    end = day_end(history_day, manifest.time_zone)
    figures = history_figures(staged, manifest, end)
    if not figures.users:
        folder = landing.folder(LandingTable.events, None)
        return TrainingOutlook((f"{folder} has no good event: training learns from the history",))
    window = manifest.prediction_window_days
    if why := why_advertisers_alone(figures, window):
        if advertisers_can_be_learnt(staged, training, manifest, end):
            return TrainingOutlook(notes=(why,))
        return TrainingOutlook((f"{NO_ADVERTISERS} A longer history helps, or a smaller prediction_window_days.",))
    examples = count_examples(staged, training, manifest, end)
    if examples >= training.minimum_examples:
        return TrainingOutlook()
    return TrainingOutlook((why_too_few(figures, examples, training.minimum_examples, window),))


def _judge(landing: Landing, table: LandingTable, settings: DataSettings, staged: Staging) -> LandingVerdict:
    """Judge one table, arrival by arrival. Then stage the needed columns of its good rows, under the table's name."""
    verdict, width = LandingVerdict(table), None
    stage_nothing(staged, table)
    for day in [None, *landing.dates()]:
        before, broken_before = (verdict.rows, verdict.quarantined), verdict.broken.copy()
        if table is LandingTable.items and width is None:
            width = embedding_width([_readable(landing, table, day, settings=settings, unreadable=[])])
        rules = Rules(table, _latest(landing, day, settings), width, landing.root, _NOBODY)
        verdict.files += len(landing.files(table, day))
        for arrival in _readable(landing, table, day, settings=settings, unreadable=verdict.unreadable):
            judged = judge(arrival, rules)
            verdict.add(judged)
            stage_columns(staged, table, judged.accepted, in_history=day is None)
        rows, broken = verdict.rows - before[0], verdict.quarantined - before[1]
        if rows and broken / rows > settings.maximum_quarantine_share:
            [(rule, often)] = (verdict.broken - broken_before).most_common(1)
            dated = landing.history_day() if day is None and rule == NOT_AFTER_ARRIVAL else None
            dated_by = f". {history_dated_by(landing, dated)}" if dated else ""
            verdict.mostly_broken.append(
                f"{table.value} of {day or 'the history'}: {broken / rows:.1%} (more than "
                f"{settings.maximum_quarantine_share:.1%} of the rows break a rule), most often {often:,} rows by the "
                f"rule {rule!r}, e.g. {verdict.examples[rule]}{dated_by}"
            )
    if table not in VERSIONED:
        verdict.repeated = repeated_rows(staged, table)
    return verdict


def _readable(
    landing: Landing, table: LandingTable, day: date | None, *, settings: DataSettings, unreadable: list[str]
) -> Iterator[Arrival]:
    """Yield the rows of an arrival's files. Of a damaged file yield the rows before the damage, and append the error to
    ``unreadable``."""
    for path in landing.files(table, day):
        try:
            yield from read_arrival(path, table, settings.batch_bytes)
        except LandingError as error:
            unreadable.append(str(error))


def _latest(landing: Landing, day: date | None, settings: DataSettings) -> datetime:
    """Return the last moment at which an event of an arrival may have happened.

    Where nothing dates the history yet, the moment is ``MAXIMUM_TIME``.
    """
    arrived_on = day or landing.history_day()
    return latest_event(arrived_on, landing.manifest.time_zone, settings) if arrived_on else MAXIMUM_TIME


def _notes(landing: Landing, first: str | None, last: str | None) -> tuple[str, ...]:
    if first is None or last is None:
        return ()
    days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    window = landing.manifest.prediction_window_days
    if days >= WINDOWS * window:
        return ()
    return (
        f"{days} days are few for a prediction window of {window:g} days: one window is held back to report "
        f"on. Set prediction_window_days in manifest.toml to at most {max(days // WINDOWS, 1)}",
    )


def _availability_notes(items: LandingVerdict) -> tuple[str, ...]:
    """Return a note on the words for availability whose meaning is not known, the most frequent ones first."""
    if not items.unknown_availability:
        return ()
    return (
        f"items: availability has words that are not known: {_named(items.unknown_availability)}. Such items are shown "
        "like those in stock. Write one of the words of docs/bring-your-own-data.md, e.g. 'out of stock'",
    )


def _status_notes(ads: LandingVerdict) -> tuple[str, ...]:
    """Return a note on the words for the status of ads whose meaning is not known, the most frequent ones first."""
    if not ads.unknown_statuses:
        return ()
    return (
        f"ads: status has words that are not known: {_named(ads.unknown_statuses)}. Such ads are never shown. Write "
        "'active' for an ad that may be shown, and 'paused' for one that may not",
    )


def _named(words: Counter[str]) -> str:
    named = ", ".join(f"{word!r} ({count:,} rows)" for word, count in words.most_common(SHOWN_WORDS))
    return named + (f" and {len(words) - SHOWN_WORDS} other words" if len(words) > SHOWN_WORDS else "")


def _problems(landing: Landing, verdicts: dict[LandingTable, LandingVerdict], positives: int) -> list[str]:
    problems = [message for verdict in verdicts.values() for message in verdict.unreadable]
    problems += [text for verdict in verdicts.values() for text in verdict.mostly_broken]
    if not_past := why_not_past(landing):
        problems.append(not_past)
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

"""``adseq status``: a home at a glance. It reads tables and the online store, and no UI need run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.cli.last_run import end_of_last_run
from pipelines.due_days import OutOfDate, standing_of
from settings import Settings
from warehouse.arrival_days import listing_of, recorded_history_day
from warehouse.day_records import completed_days, landed_days
from warehouse.home import Home
from warehouse.item_trainings import why_advertisers_alone
from warehouse.landing import Landing
from warehouse.online import NothingPublished, open_store
from warehouse.online.publication import Publication, served
from warehouse.online.store import StoreUnreachable
from warehouse.tables import Tables

STALE_DAYS = 2  # since the newest landed day: yesterday's files may still come


@dataclass(frozen=True)
class Status:
    """The state of a home.

    Attributes:
        home, landing: directories.
        history_day: the day that the history counts as; None before its ingestion.
        landed: days in the landing zone, or ingested from it, ascending.
        waiting: of these, the days that have not run to their end.
        out_of_date: days that ran on other files than there are now, each with the reason.
        champion, advertiser_version, relevance_version: names of the newest versions in use; None before the first.
        served_version, served_day, published_at: of the publication that the service answers from; None without any.
        newest_age_days: days since the newest landed day; None for a synthetic world, whose calendar stands still.
        last_run: the end of the newest run.
        writer: the process that writes to the home now, in words.
        warnings: sentences.
        next_command: the command that brings the home on.
    """

    home: str
    landing: str
    history_day: date | None
    landed: Sequence[date]
    waiting: Sequence[date]
    out_of_date: Sequence[str]
    champion: str | None
    advertiser_version: str | None
    relevance_version: str | None
    served_version: str | None
    served_day: date | None
    published_at: datetime | None
    newest_age_days: int | None
    last_run: datetime | None
    writer: str | None
    warnings: Sequence[str]
    next_command: str


def status_of(home: Home) -> Status:
    """Return the state of a home. Write nothing."""
    tables, landing = Tables(home.tables), Landing(home.landing)
    landed, done = landed_days(home), completed_days(tables)
    standing = standing_of(home, done)
    publication, unreachable = _published(home)
    age = (landing.today() - landed[-1]).days if landed and not landing.manifest.synthetic else None
    waiting = [day for day in landed if day not in done]
    alone = why_advertisers_alone(tables)
    warnings = [
        *([unreachable] if unreachable else []),
        *([alone] if alone else []),
        *_of_ages(age, publication, landed),
        *(f"Not read: {each}." for each in listing_of(tables, landing).unread),
        *_of_the_newest_day(tables),
    ]
    return Status(
        home=str(home.root),
        landing=str(home.landing),
        history_day=recorded_history_day(tables),
        landed=landed,
        waiting=waiting,
        out_of_date=[str(each) for each in standing.out_of_date],
        champion=_newest("model_version", tables, "promotions", by=pl.col("promoted_at")),
        advertiser_version=_newest("model_version", tables, "advertiser_versions", by=pl.col("created")),
        relevance_version=_newest("version", tables, "relevance_versions", by=pl.col("day"), kept=pl.col("passed")),
        served_version=publication.model_version if publication else None,
        served_day=publication.day if publication else None,
        published_at=publication.published_at if publication else None,
        newest_age_days=age,
        last_run=end_of_last_run(home),
        writer=home.writer(),
        warnings=warnings,
        next_command=_next(home, landed, waiting, standing.out_of_date),
    )


def show_status(status: Status, console: Console) -> None:
    """Print a home at a glance."""
    grid = Table.grid(padding=(0, 2))
    for name, text in _lines(status):
        grid.add_row(f"[bold]{name}[/]", escape(text))
    console.print(grid)
    for sentence in [*status.warnings, *status.out_of_date]:
        console.print(f"[yellow]![/] {escape(sentence)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]Next[/]  {escape(status.next_command)}", highlight=False, soft_wrap=True)


def _lines(status: Status) -> Iterator[tuple[str, str]]:
    yield "home", status.home
    yield "landing zone", status.landing
    if status.writer:
        yield "running now", status.writer
    history = f"history as of {status.history_day}" if status.history_day else "no history yet"
    yield "landed", f"{history}; {_range(status.landed)}{_aged(status.newest_age_days)}"
    done = len(status.landed) - len(status.waiting)
    last = f"; the last run ended {_time(status.last_run)}" if status.last_run else ""
    waiting = f", waiting: {_range(status.waiting)}" if status.waiting else ""
    yield "run", f"{done} of {len(status.landed)} days to their end{waiting}{last}"
    if status.served_version and status.published_at:
        yield "served", f"{status.served_version} as of {status.served_day}, published {_time(status.published_at)}"
    else:
        yield "served", "nothing yet"
    versions = {"champion": status.champion, "advertisers": status.advertiser_version}
    named = [f"{version} ({role})" for role, version in versions.items() if version]
    yield "models", ", ".join([*named, *([status.relevance_version] if status.relevance_version else [])]) or "none yet"


def _range(days: Sequence[date]) -> str:
    if not days:
        return "no day"
    return str(days[0]) if len(days) == 1 else f"{len(days)} days, {days[0]} to {days[-1]}"


def _aged(days: int | None) -> str:
    if days is None:
        return ""
    return ", the newest is today's" if days <= 0 else f", the newest is {days} day{'s' if days > 1 else ''} old"


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _published(home: Home) -> tuple[Publication | None, str | None]:
    """Return the publication that is served, and the sentence on a store that does not answer."""
    try:
        store = open_store(Settings().online.store, home)
        try:
            return served(store), None
        finally:
            store.close()
    except NothingPublished:
        return None, None
    except StoreUnreachable as error:
        return None, str(error)


def _of_ages(age: int | None, publication: Publication | None, landed: Sequence[date]) -> Iterator[str]:
    if age is not None and age > STALE_DAYS:
        yield f"The newest landed day is {age} days old: has the export stopped?"
    if publication and landed and publication.day < landed[-1]:
        behind = (landed[-1] - publication.day).days
        yield f"The service answers as of {publication.day}, {behind} days before the newest landed day."


def _of_the_newest_day(tables: Tables) -> Iterator[str]:
    """Yield the figures beyond their bounds of the newest day that has been judged."""
    if tables.exists("data_quality") and (days := tables.days("data_quality", "day")):
        beyond = tables.scan("data_quality").filter(pl.col("day") == days[-1], pl.col("warns") | pl.col("stops"))
        for row in beyond.collect().iter_rows(named=True):
            value = "none" if row["value"] is None else f"{row['value']:,.3g}"
            yield f"{days[-1]}, data quality, {row['name']}: {row['figure']} {value} (bound: {row['bound']})."
    if tables.exists("relevance_monitoring") and (days := tables.days("relevance_monitoring", "day")):
        beyond = tables.scan("relevance_monitoring").filter(pl.col("day") == days[-1], pl.col("warning"))
        for row in beyond.collect().iter_rows(named=True):
            yield f"{days[-1]}, relevance on {row['surface']}: {row['figure']} {row['value']:,.3g}."


def _newest(column: str, tables: Tables, name: str, *, by: pl.Expr, kept: bool | pl.Expr = True) -> str | None:
    """Return a column of the newest of the ``kept`` rows of a table; None without any."""
    if not tables.exists(name):
        return None
    found = tables.scan(name).filter(kept).sort(by).select(column).tail(1).collect()
    return str(found.item()) if len(found) else None


def _next(home: Home, landed: Sequence[date], waiting: Sequence[date], out_of_date: Sequence[OutOfDate]) -> str:
    here = f"--home {shlex.quote(str(home.root))}"
    if not landed:
        return f"Write an export into {home.landing} (`adseq import --help`), then: adseq run {here}"
    if waiting or out_of_date:
        return f"adseq run {here}"
    return f"adseq serve {here}"

"""``adseq recommend``: what a user did and what they would be shown, as a table."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.cli.errors import RunRefused
from serving.answer import answer, history
from serving.contracts import (
    Candidate,
    CandidateRequest,
    CandidateResponse,
    HistoryRequest,
    HistoryResponse,
)
from serving.generator_plugins import GeneratorRefused
from serving.prometheus import ServiceMetrics, Stopwatch
from serving.propose import Proposers
from serving.publication import Served
from settings import Settings
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.online import open_store
from warehouse.surfaces import Surface

SHOWN_EVENTS = 10
SHOWN_SOURCES = {"item_neighbours": "", "popularity": "", "advertiser_lists": "advertiser"}
"""The words for the generators of the service; any other generator is shown by its name."""


def show_candidates(
    home: Home, user_id: str, subject: str | None, *, query: str | None, count: int, console: Console
) -> None:
    """Print the history, newest first, and the candidates with the context and without the context.

    Raises:
        NothingPublished: no day has been published.
        RunRefused: the settings name a generator that cannot be used.
    """
    settings = Settings(home=home.root)
    try:
        proposers = Proposers.of(settings.serving)
    except GeneratorRefused as error:
        raise RunRefused(str(error)) from error
    store = open_store(settings.online.store, home)
    try:
        served = Served.newest(home.root, store)

        def asked(request: CandidateRequest) -> CandidateResponse:
            watch, share = Stopwatch(ServiceMetrics()), settings.relevance.holdout_share
            return answer(served, store, request, proposers=proposers, watch=watch, holdout_share=share).response

        about = history(served, store, HistoryRequest(user_id=user_id, subject_item_id=subject))
        without = asked(CandidateRequest(user_id=user_id, k=count))
        lists = {f"without context ({without.basis.replace('_', ' ')})": without.candidates}
        if subject is not None or query is not None:
            surface = Surface.search if subject is None else Surface.related_pins
            place = CandidateRequest(user_id=user_id, k=count, surface=surface, subject_item_id=subject, query=query)
            within = asked(place)
            lists[f"with context ({within.basis.replace('_', ' ')})"] = within.candidates
            console.print(_place(about, within, subject, query), highlight=False)
        console.print(_history(about, ZoneInfo(Landing(home.landing).manifest.time_zone)))
        console.print(_lists(lists))
        publication = served.publication
        console.print(f"{publication.model_version}, as of the end of {publication.day}", style="dim", highlight=False)
    finally:
        store.close()


def _place(about: HistoryResponse, within: CandidateResponse, subject: str | None, query: str | None) -> str:
    if about.subject is not None:
        return f"Looking at [bold]{escape(about.subject)}[/]"
    if subject is not None:
        return f"Looking at [bold]{escape(subject)}[/], which the catalogue does not have: nothing is known of it."
    interests = ", ".join(f"{name} ({weight:.2f})" for name, weight in within.interests.items())
    taken_for = escape(interests) or "nothing that the catalogue has"
    return f"Searching for [bold]{escape(query or '')}[/], taken for {taken_for}"


def _history(about: HistoryResponse, zone: ZoneInfo) -> Table:
    table = Table(title="History, newest first", title_justify="left")
    for column in (f"When ({zone.key})", "What", "Item", "Category"):
        table.add_column(column)
    for event in about.events[:SHOWN_EVENTS]:
        title = event.title or event.item_id or "–"
        cells = (f"{event.event_time.astimezone(zone):%Y-%m-%d %H:%M}", event.event_name, title, event.category or "")
        table.add_row(*map(escape, cells))
    return table


def _lists(lists: dict[str, list[Candidate]]) -> Table:
    table = Table(title="Candidates", title_justify="left")
    table.add_column("")
    ads = any(candidate.ad_id for each in lists.values() for candidate in each)
    columns = ["score", "bid"] if ads else ["score"]
    for name in lists:
        table.add_column(name)
        for column in columns:
            table.add_column(column, justify="right")
    for rank in range(max((len(each) for each in lists.values()), default=0)):
        cells = [str(rank + 1)]
        for each in lists.values():
            found = _cells(each[rank]) if rank < len(each) else ["", "", ""]
            cells += found[: 1 + len(columns)]
        table.add_row(*cells)
    return table


def _cells(candidate: Candidate) -> list[str]:
    """Return the name, the score and the bid of the ad, which is empty without one."""
    source = SHOWN_SOURCES.get(candidate.source, candidate.source.replace("_", " "))
    shown = f" [dim]({escape(source)})[/]" if source else ""
    kind = f" {candidate.bid_kind}" if candidate.bid_kind else ""
    bid = "" if candidate.bid is None else f"{candidate.bid:,.2f}{kind}"
    return [escape(candidate.title or candidate.item_id) + shown, f"{candidate.score:.3f}", bid]

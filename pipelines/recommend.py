"""``adseq recommend``: what a user did and what they would be shown, as a table."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.candidates import answer
from serving.contracts import Candidate, CandidateRequest, CandidateResponse, Surface
from serving.metrics import Metrics, Stopwatch
from serving.served import Served
from serving.users import PastEvent, read_user
from settings import Settings
from warehouse.home import Home
from warehouse.online import open_store

SHOWN_EVENTS = 10


def show_candidates(
    home: Home, user_id: str, subject: str | None, query: str | None, count: int, console: Console
) -> None:
    """Print the history, newest first, and the candidates with the context and without it.

    Raises:
        NothingPublished: no day has been published.
    """
    settings = Settings(home=home.root)
    store = open_store(settings.online.store, home)
    try:
        served = Served.newest(home.root, store)

        def asked(request: CandidateRequest) -> CandidateResponse:
            return answer(served, store, request, settings.serving, Stopwatch(Metrics()))

        history = read_user(store, served.publication, user_id).history
        without = asked(CandidateRequest(user_id=user_id, k=count))
        lists = {f"without context ({without.basis.replace('_', ' ')})": without.candidates}
        if subject is not None or query is not None:
            surface = Surface.search if subject is None else Surface.related_pins
            place = CandidateRequest(user_id=user_id, k=count, surface=surface, subject_item_id=subject, query=query)
            within = asked(place)
            lists[f"with context ({within.basis.replace('_', ' ')})"] = within.candidates
            console.print(_place(served, within, subject, query), highlight=False)
        console.print(_history(served, history))
        console.print(_lists(lists))
        publication = served.publication
        console.print(f"{publication.model_version}, as of the end of {publication.day}", style="dim", highlight=False)
    finally:
        store.close()


def _place(served: Served, response: CandidateResponse, subject: str | None, query: str | None) -> str:
    if subject is not None:
        row = served.catalogue.row_of.get(subject)
        if row is None:
            return f"Looking at [bold]{escape(subject)}[/], which the catalogue does not have: nothing is known of it."
        item = served.catalogue.frame.row(row, named=True)
        return f"Looking at [bold]{escape(item['title'] or subject)}[/]  {escape(item['category_path'] or '')}"
    about = ", ".join(f"{name} ({weight:.2f})" for name, weight in response.interests.items())
    return (
        f"Searching for [bold]{escape(query or '')}[/], taken for {escape(about) or 'nothing that the catalogue has'}"
    )


def _history(served: Served, history: list[PastEvent]) -> Table:
    table = Table(title=f"The newest of {len(history)} events", title_justify="left")
    for column in ("When (UTC)", "What", "Item", "Category"):
        table.add_column(column)
    for event in history[::-1][:SHOWN_EVENTS]:
        row = served.catalogue.row_of.get(event.item_id) if event.item_id else None
        item = {} if row is None else served.catalogue.frame.row(row, named=True)
        title = item.get("title") or event.item_id or "–"
        cells = (f"{event.event_time:%Y-%m-%d %H:%M}", event.event_name, title, item.get("category_path") or "")
        table.add_row(*map(escape, cells))
    return table


def _lists(lists: dict[str, list[Candidate]]) -> Table:
    table = Table(title="Candidates", title_justify="left")
    table.add_column("")
    for name in lists:
        table.add_column(name)
        table.add_column("score", justify="right")
    for rank in range(max((len(each) for each in lists.values()), default=0)):
        cells = [str(rank + 1)]
        for each in lists.values():
            cells += _cells(each[rank]) if rank < len(each) else ["", ""]
        table.add_row(*cells)
    return table


def _cells(candidate: Candidate) -> list[str]:
    source = " [dim](advertiser)[/]" if candidate.source == "advertiser_lists" else ""
    return [escape(candidate.title or candidate.item_id) + source, f"{candidate.score:.3f}"]

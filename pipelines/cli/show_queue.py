"""``adseq relevance``: what raters get next, and how far they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.cli.errors import RunRefused
from settings import Settings
from warehouse.contracts import STAGES
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.queued_pairs import Labelling, Queue, QueuedPair, why_no_queue
from warehouse.tables import Tables

SHOWN_PAIRS = 10
UNKNOWN = "unknown"


def queue_of(home: Home) -> Queue:
    """Return the newest queue of a home with the judgements so far.

    Raises:
        RunRefused: there is no pair to judge.
        TableDamaged: the log of the table cannot be read.
    """
    tables = Tables(home.tables)
    queue = Labelling(tables, Landing(home.landing)).current()
    if queue is None:
        reason = why_no_queue(tables)
        raise RunRefused(f"{home.root}: {reason}.")
    return queue


def queue_figures(queue: Queue, settings: Settings, count: int = SHOWN_PAIRS) -> dict[str, Any]:
    """Return the queue as JSON: counts, strata, and the first pairs that lack raters."""
    enough = settings.relevance.raters_per_pair
    pairs = list(queue.pairs.values())
    raters = Counter(rater for pair in pairs for rater in pair.judgements)
    strata = [
        {
            "surface": surface,
            "stage": stage,
            "content_type": content_type,
            "pairs": len(found),
            "done": sum(len(pair.judgements) >= enough for pair in found),
        }
        for (surface, stage, content_type), found in _strata(pairs).items()
    ]
    return {
        "day": queue.day.isoformat(),
        "pairs": len(pairs),
        "reported": sum(pair.row["reason"] == "reported" for pair in pairs),
        "done": sum(len(pair.judgements) >= enough for pair in pairs),
        "begun": sum(0 < len(pair.judgements) < enough for pair in pairs),
        "raters_per_pair": enough,
        "raters": dict(raters.most_common()),
        "strata": strata,
        "next": [_as_json(pair) for pair in _waiting(pairs, enough)[:count]],
    }


def show_queue(home: Home, queue: Queue, settings: Settings, *, count: int, console: Console) -> None:
    """Print what raters get next: counts by stratum, the raters, the first pairs, and what to do."""
    found = queue_figures(queue, settings)
    enough = settings.relevance.raters_per_pair
    pairs = list(queue.pairs.values())
    console.print(_counts(pairs, enough, f"Pairs for raters after {queue.day}"))
    reported = f", {found['reported']} of them reported" if found["reported"] else ""
    console.print(
        f"{found['pairs']} pairs{reported}: {found['done']} have {enough} raters, {found['begun']} have fewer, "
        f"{found['pairs'] - found['done'] - found['begun']} have none.",
        highlight=False,
        soft_wrap=True,
    )
    if found["raters"]:
        said = ", ".join(f"{rater} {number}" for rater, number in found["raters"].items())
        console.print(f"Judged by rater: {escape(said)}.", highlight=False, soft_wrap=True)
    waiting = _waiting(pairs, enough)
    if not waiting:
        console.print("All pairs are judged: the next day's run makes a new queue.", highlight=False)
        return
    console.print(_first(waiting[:count]))
    console.print("[bold]Next[/]")
    command = f"adseq serve --home {home.root}"
    console.print(f"  {escape(command)}, then judge at http://127.0.0.1:8080/label", highlight=False, soft_wrap=True)


def _strata(pairs: list[QueuedPair]) -> dict[tuple[str, str | None, str | None], list[QueuedPair]]:
    """Return the pairs of each surface, stage and content type."""
    found: dict[tuple[str, str | None, str | None], list[QueuedPair]] = {}
    for pair in pairs:
        found.setdefault((pair.row["surface"], pair.row["stage"], pair.row["content_type"]), []).append(pair)
    return dict(sorted(found.items(), key=lambda each: _place(*each[0])))


def _place(surface: str, stage: str | None, content_type: str | None) -> tuple[str, int, str]:
    """Return the place of a stratum: by surface, in the order of the funnel, by content type; what is unknown first."""
    return surface, STAGES.index(stage) if stage in STAGES else -1, content_type or ""


def _waiting(pairs: list[QueuedPair], enough: int) -> list[QueuedPair]:
    return [pair for pair in pairs if len(pair.judgements) < enough]


def _as_json(pair: QueuedPair) -> dict[str, Any]:
    left_out = ("rater_ids", "day")
    return {name: value for name, value in pair.row.items() if name not in left_out} | {
        "raters": sorted(pair.judgements)
    }


def _counts(pairs: list[QueuedPair], enough: int, title: str) -> Table:
    """Return a table of the number of pairs, by surface and stage, and by content type across."""
    strata = _strata(pairs)
    kinds = sorted({content_type or "" for _, _, content_type in strata})
    table = Table(title=title, title_justify="left")
    table.add_column("Surface")
    table.add_column("Stage")
    for column in ("pairs", "done", *(kind or UNKNOWN for kind in kinds)):
        table.add_column(column, justify="right")
    for surface, stage in dict.fromkeys((surface, stage) for surface, stage, _ in strata):
        of_row = {kind or "": found for (a, b, kind), found in strata.items() if (a, b) == (surface, stage)}
        together = [pair for found in of_row.values() for pair in found]
        done = len(together) - len(_waiting(together, enough))
        cells = [str(len(of_row[kind])) if kind in of_row else "–" for kind in kinds]
        table.add_row(surface, stage or UNKNOWN, str(len(together)), str(done), *cells)
    return table


def _first(pairs: list[QueuedPair]) -> Table:
    """Return a table of pairs as raters get them."""
    table = Table(title="The first pairs that lack raters", title_justify="left")
    for column in ("#", "Beside, or searched", "Candidate", "Category", "Raters"):
        table.add_column(column, justify="right" if column in ("#", "Raters") else "left")
    for pair in pairs:
        row = pair.row
        place = row["subject_title"] or row["subject_item_id"] if row["query"] is None else f"“{row['query']}”"
        reported = " (reported)" if row["reason"] == "reported" else ""
        cells = (place, (row["title"] or row["item_id"]) + reported, row["category"] or "–")
        table.add_row(str(row["position"]), *map(escape, cells), str(len(pair.judgements)))
    return table

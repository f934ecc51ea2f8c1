"""``adseq validate``: a landing zone, table by table, before anything runs."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from settings import Settings
from warehouse.arrival_days import landing_of
from warehouse.day_records import history_changes, standings
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.listing import list_landing
from warehouse.tables import Tables
from warehouse.trainability import TrainingRule
from warehouse.validate_landing import Validation, validate

SHOWN_RULES = 20


def validate_landing(landing: Landing, home: Home, console: Console) -> bool:
    """Print the contents of a landing zone. Returns whether a run could begin.

    Args:
        home: if the home reads this landing zone, the zone is read as in that home, and the files that came, changed
            or went after their days ran are printed, too.

    Raises:
        ManifestError: manifest.toml breaks a rule.
        HomeRecordError: the record of the home cannot be read.
    """
    settings, tables = Settings(), Tables(home.tables)
    reads_it = home.landing.absolute() == landing.root.absolute()
    landing = landing_of(tables, landing) if reads_it else landing
    found = validate(landing, settings.data, _training_rule(settings))
    console.print(_tables(found))
    if any(verdict.broken for verdict in found.verdicts.values()):
        console.print(_broken(found))
    _print_log(landing, found, console)
    for verdict in found.verdicts.values():
        for text in verdict.missing:
            console.print(f"[dim]{verdict.table.value}[/]: {escape(text)}", highlight=False)
    for unread in list_landing(landing).unread:
        console.print(f"[yellow]Not read:[/] {escape(str(unread))}", highlight=False, soft_wrap=True)
    if reads_it:
        _print_changes(tables, landing, console)
    for text in found.notes:
        console.print(f"[yellow]Note:[/] {escape(text)}", highlight=False)
    if not found.problems:
        ready = f"Ready: adseq run --landing {landing.root} --home HOME"
        console.print(ready, highlight=False, markup=False, soft_wrap=True)
        return True
    for problem in found.problems:
        console.print(f"[red]A run would stop:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    return False


def _print_changes(tables: Tables, landing: Landing, console: Console) -> None:
    """Print the files that differ from the files that their day ran on."""
    changes = [*history_changes(tables, landing)]
    changes += [change for standing in standings(tables, landing) for change in standing.changes]
    for change in changes:
        text = escape(f"{change}: its day ran before; `adseq run` repeats that day and the days after it")
        console.print(f"[yellow]Not in the tables:[/] {text}", highlight=False, soft_wrap=True)


def _training_rule(settings: Settings) -> TrainingRule:
    """Return the needs of the first training, computed by the function that the training itself uses."""
    from ml.examples.pairs import training_cutoffs

    examples = settings.examples

    def cutoffs(end: float, first: float, window_days: float) -> list[float]:
        return training_cutoffs(
            end, first, examples.span_days, window_days=window_days, count=examples.cutoffs
        ).tolist()

    return TrainingRule(examples.minimum_examples, cutoffs)


def _tables(found: Validation) -> Table:
    table = Table(title="Landing zone", title_justify="left")
    table.add_column("table")
    for name in ("files", "rows", "good", "quarantined", "sent again"):
        table.add_column(name, justify="right")
    table.add_column("columns that are not read")
    for name, verdict in found.verdicts.items():
        figures = (verdict.files, verdict.rows, verdict.good, verdict.quarantined, verdict.repeated)
        table.add_row(
            name.value, *(f"{figure:,}" for figure in figures), escape(", ".join(sorted(verdict.ignored_columns)))
        )
    return table


def _broken(found: Validation) -> Table:
    table = Table(title="Rows that would be quarantined", title_justify="left")
    for name in ("table", "rule that is broken", "rows", "for example"):
        table.add_column(name, justify="right" if name == "rows" else "left")
    for name, verdict in found.verdicts.items():
        for rule, rows in verdict.broken.most_common(SHOWN_RULES):
            table.add_row(name.value, escape(rule), f"{rows:,}", escape(verdict.examples[rule]))
    return table


def _print_log(landing: Landing, found: Validation, console: Console) -> None:
    if found.first_event is None:
        return
    names = ", ".join(f"{name} {count:,}" for name, count in found.by_name.items())
    console.print(f"{found.first_event} to {found.last_event}, {found.days} daily days: {names}", highlight=False)
    share = found.positives / max(1, sum(found.by_name.values()))
    counted = ", ".join(landing.manifest.positive_events)
    console.print(f"{found.positives:,} events ({share:.1%}) count as conversions: {counted}", highlight=False)

"""``adseq check``: prove a home whole, or name what is broken and the command that makes it again."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.checks.databases import database_part, registry_part
from pipelines.checks.fault import Checked, Part
from pipelines.checks.home import record_part, users_part
from pipelines.checks.models import index_part, model_part, relevance_part
from pipelines.checks.online import online_part
from pipelines.checks.tables import tables_part
from pipelines.cli.errors import RunRefused
from warehouse.home import Home
from warehouse.open_home import format_of

PARTS = (
    record_part,
    users_part,
    tables_part,
    model_part,
    relevance_part,
    index_part,
    online_part,
    registry_part,
    database_part,
)


def check_home(home: Home, deep: bool, console: Console) -> bool:
    """Print the checked parts and the damaged ones. Returns whether nothing is damaged.

    Raises:
        RunRefused: there is no home at this place.
        HomeRecordError: ``home.json`` cannot be read.
    """
    if format_of(home) is None:
        raise RunRefused(f"{home.root} is not a home of adseq: it has neither home.json nor tables. Give --home.")
    found = parts_of(home, deep)
    _print(found, console)
    return not any(part.faults for part in found)


def parts_of(home: Home, deep: bool) -> list[Part]:
    """Return the findings of each check of ``PARTS``.

    Args:
        deep: whether every row of every table is read, too.
    """
    checked = Checked(home, deep)
    return [look(checked) for look in PARTS]


def _print(found: Sequence[Part], console: Console) -> None:
    table = Table(title="The home", title_justify="left")
    table.add_column("part")
    table.add_column("looked at")
    table.add_column("state")
    for part in found:
        state = f"[red]{len(part.faults)} broken[/]" if part.faults else "[green]whole[/]"
        table.add_row(part.name, escape(part.looked_at), state)
    console.print(table)
    for part in found:
        for fault in part.faults:
            console.print(f"[red]Broken:[/] {escape(fault.what)}", highlight=False, soft_wrap=True)
            console.print(f"  Made again by: {escape(fault.remedy)}", highlight=False, soft_wrap=True)
        for note in part.notes:
            console.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)

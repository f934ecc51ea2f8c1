"""``adseq migrate``: a home that an earlier version wrote goes on with this one."""

from __future__ import annotations

from rich.console import Console

from assets.common.resources import writing
from pipelines.cli.errors import RunRefused
from warehouse.home import Home
from warehouse.home_record import HOME_FORMAT
from warehouse.migrate_home import STEPS
from warehouse.open_home import format_of, keep_private, require_format


def migrate_home(home: Home, console: Console) -> None:
    """Bring ``home`` to today's format, one format after the other. After an interruption the same command goes on.

    Raises:
        RunRefused: there is no home at this place.
        MigrationImpossible: a step cannot be done; the message says why.
        HomeRecordError: ``home.json`` cannot be read, or is of a later format.
        HomeLocked: another process writes to the home.
    """
    keep_private()
    found = format_of(home)
    if found is None:
        raise RunRefused(f"{home.root} is not a home of adseq: it has neither home.json nor tables. Give --home.")
    if found >= HOME_FORMAT:
        require_format(home)
        console.print(f"{home.root} is of format {HOME_FORMAT} already: nothing to do.", highlight=False, markup=False)
        return
    with writing(home, "adseq migrate"):
        for step in range(found, HOME_FORMAT):
            done = STEPS[step](home)
            console.print(f"Format {step} -> {step + 1}: {done}", highlight=False, soft_wrap=True)
    console.print(
        f"{home.root} is of format {HOME_FORMAT} now. `adseq check` proves it whole.", highlight=False, markup=False
    )

"""``adseq rollback``: an earlier champion serves again."""

from __future__ import annotations

from rich.console import Console

from assets.common.resources import writing
from assets.common.workspace import Workspace
from assets.steps.rollback import NoEarlierChampion, roll_back
from pipelines.cli.errors import RunRefused
from warehouse.home import Home


def roll_back_home(home: Home, to: str | None, console: Console) -> None:
    """Roll back and print the result.

    Raises:
        RunRefused: there is no such champion.
        HomeLocked: another process writes to the home.
    """
    with writing(home, "adseq rollback"):
        try:
            done = roll_back(Workspace.from_environment(), to)
        except NoEarlierChampion as error:
            raise RunRefused(str(error)) from error
    console.print(
        f"{done.now} is champion again, in the place of {done.before}. Its states were caught up over "
        f"{done.caught_up_days} days; {done.states:,} were published in {done.seconds:.1f} s and are served as of the "
        f"end of {done.day}.\nA running service follows by itself. `adseq run --retrain` trains a new candidate.",
        highlight=False,
    )

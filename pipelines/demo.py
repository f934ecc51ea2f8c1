"""What ``adseq demo`` runs on: the synthetic world, written once into a home's landing zone."""

from __future__ import annotations

import shutil
import time

from rich.console import Console

from pipelines.failures import RunRefused
from warehouse.landing import Landing
from warehouse.world import WorldSettings, is_world, write_world


def ensure_world(landing: Landing, days: int, console: Console) -> None:
    """Write the world with ``days`` daily partitions unless the landing zone holds one already.

    It is written beside the landing zone and renamed, so that an interrupted run leaves no half of a world.

    Raises:
        RunRefused: the landing zone holds something else.
    """
    if is_world(landing.root):
        return
    if landing.root.is_dir() and any(landing.root.iterdir()):
        raise RunRefused(
            f"{landing.root} holds a log of yours, not the synthetic world: use `adseq run`, or another --home."
        )
    console.print(f"Writing the synthetic world into {landing.root} ...", highlight=False, soft_wrap=True)
    started = time.monotonic()
    unfinished = landing.root.with_name(f".{landing.root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    summary = write_world(Landing(unfinished), WorldSettings(), days)
    unfinished.rename(landing.root)
    console.print(
        f"  {summary.events:,} events of {summary.users:,} users and {summary.items:,} items, "
        f"{summary.impressions:,} impressions; {len(summary.days)} daily days  "
        f"[dim]{time.monotonic() - started:.1f} s[/]",
        highlight=False,
        soft_wrap=True,
    )

"""What ``adseq demo`` runs on: the synthetic world, written once into a home's landing zone."""

from __future__ import annotations

import os
import shutil
import time

from rich.console import Console
from rich.markup import escape

from pipelines.cli.errors import RunRefused
from warehouse.landing import Landing
from warehouse.world import AnotherEdition, WorldSettings, read_settings, write_world

# The demo is meant to end within a quarter of an hour on two cores. It trains and asks less than the defaults, which
# are meant for real logs; whatever the environment sets has precedence.
DEMO_SETTINGS = {
    "ADSEQ_TRAINING__BATCH_SIZE": "256",
    "ADSEQ_TRAINING__CORPUS_NEGATIVES": "1024",
    "ADSEQ_TRAINING__EPOCH_EXAMPLES": "11000",
    "ADSEQ_TRAINING__EPOCHS": "4",
    "ADSEQ_ADVERTISERS__BATCH_SIZE": "128",
    "ADSEQ_ADVERTISERS__EPOCH_EXAMPLES": "6000",
    "ADSEQ_ADVERTISERS__EPOCHS": "4",
    "ADSEQ_RELEVANCE__PROBES": "500",
}


def use_demo_settings(console: Console) -> None:
    """Put the demo's settings into the environment; call this function before settings are read."""
    for name, value in DEMO_SETTINGS.items():
        os.environ.setdefault(name, value)
    chosen = ", ".join(f"{name}={os.environ[name]}" for name in DEMO_SETTINGS)
    console.print(f"The demo trains and measures briefly: {chosen}", style="dim", highlight=False, soft_wrap=True)


def ensure_world(landing: Landing, days: int, console: Console) -> None:
    """Write the world with ``days`` daily partitions unless the landing zone holds one already.

    The world is written beside the landing zone and renamed, so that an interrupted run leaves no half of a world.

    Raises:
        RunRefused: the landing zone holds something else.
    """
    try:
        read_settings(landing.root)
    except AnotherEdition as error:
        raise RunRefused(str(error)) from error
    except FileNotFoundError:
        _write_world(landing, days, console)


def _write_world(landing: Landing, days: int, console: Console) -> None:
    if landing.root.is_dir() and any(landing.root.iterdir()):
        raise RunRefused(
            f"{landing.root} holds a log of yours, not the synthetic world: use `adseq run`, or another --home."
        )
    console.print(f"Writing the synthetic world into {escape(str(landing.root))} ...", highlight=False, soft_wrap=True)
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

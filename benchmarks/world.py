"""What the benchmarks measure on: the synthetic world in a temporary home, ingested and prepared for training."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from rich.console import Console

from assets.common.workspace import Workspace
from assets.steps.period import training_period
from ml.examples.period import Prepared, TrainingPeriod, prepare
from ml.features.event_log import Slices, newest
from settings import Settings
from warehouse.contracts import LandingTable
from warehouse.home import Home
from warehouse.ingest.arrival import ingest
from warehouse.landing import Landing
from warehouse.tables import Tables
from warehouse.world import WorldSettings, write_world

POSITIONS = 100  # what the padded peers pad to: the default length of a sequence
INGESTED = (LandingTable.events, LandingTable.items, LandingTable.users)


@dataclass(frozen=True)
class World:
    """The default world after its history, nothing trained yet."""

    home: Home
    landing: Landing
    tables: Tables
    settings: Settings
    period: TrainingPeriod
    prepared: Prepared
    trained_day: date  # the last day of the history

    def everyone(self) -> Slices:
        """Return each user's newest events at the end of the log: the targets are stated for these lengths."""
        log = self.prepared.dataset.log
        return newest(log, np.arange(log.users), log.offsets[1:], POSITIONS)

    def lengths(self) -> str:
        """Return the lengths of ``everyone`` in words."""
        lengths = self.everyone().lengths
        return f"mean length {lengths.mean():.1f}, median {np.median(lengths):.0f}, {(lengths == 100).mean():.0%} cut"


@contextmanager
def written_world(console: Console) -> Iterator[World]:
    """Write the world into a temporary home, yield the world, and remove the home afterwards.

    Settings are the defaults, whatever the environment says, so that figures compare.
    """
    for name in [name for name in os.environ if name.startswith("ADSEQ_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="adseq-benchmark-") as directory:
        home = Home(Path(directory)).create()
        os.environ["ADSEQ_HOME"] = str(home.root)
        settings = Settings()
        landing, tables = Landing(home.landing), Tables(home.tables)
        summary = write_world(landing, WorldSettings(), days=1)
        for table in INGESTED:
            ingest(landing, tables, table, day=None, settings=settings.data)
        trained_day = summary.days[0] - timedelta(days=1)
        period = training_period(Workspace(settings), trained_day)
        world = World(home, landing, tables, settings, period, prepare(period, settings), trained_day)
        console.print(
            f"Synthetic world: {summary.events:,} events of {summary.users:,} users, {summary.items:,} items; "
            f"{world.prepared.dataset.log.users:,} users with events, {world.lengths()}.",
            highlight=False,
        )
        yield world

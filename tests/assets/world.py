"""A tiny world, the settings under which its flow takes seconds, and ways to run it in processes of their own.

``assets.common.partitions`` reads the home when it is imported, so every home needs its own process
(``tests/processes.py`` starts them).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tests import processes
from tests.processes import Started
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.world import WorldSettings, write_day

ADSEQ = "from pipelines.cli.app import app; app()"
"""The code of the ``adseq`` command."""

WORLD = WorldSettings(
    history_days=90,
    initial_users=400,
    new_users_per_day=2,
    regular_share=0.6,
    regular_sessions_per_day=0.8,
    initial_items=300,
    new_items_per_day=2,
    advertisers=30,
    departments=3,
    late_share=0.05,
    duplicate_share=0.02,
    impression_days=30,
    request_share=0.05,
    relevance_labels=480,
    labels_per_day=120,
)
DAYS = [WORLD.first_daily_day + timedelta(days=number) for number in range(3)]
TRAINED = DAYS[0] - timedelta(days=1)  # the history's arrival day, until which the first model learns
LATER = DAYS[-1] + timedelta(days=1)

SETTINGS = {
    "ADSEQ_FEATURES__CONTENT_DIMENSIONS": "16",
    "ADSEQ_SEQUENCES__LENGTH": "30",
    "ADSEQ_EXAMPLES__CUTOFFS": "6",
    "ADSEQ_MODEL__WIDTH": "16",
    "ADSEQ_MODEL__LAYERS": "1",
    "ADSEQ_MODEL__HEADS": "2",
    "ADSEQ_TRAINING__EPOCHS": "1",
    "ADSEQ_TRAINING__EPOCH_EXAMPLES": "3000",
    "ADSEQ_TRAINING__BATCH_SIZE": "256",
    "ADSEQ_TRAINING__CORPUS_NEGATIVES": "128",
    "ADSEQ_TRAINING__VALIDATION_USERS": "200",
    "ADSEQ_TRAINING__FITS_AT_ONCE": "1",  # the fits take seconds, and so does the start of a worker
    "ADSEQ_ADVERTISERS__EPOCHS": "1",
    "ADSEQ_ADVERTISERS__EPOCH_EXAMPLES": "3000",
    "ADSEQ_ADVERTISERS__BATCH_SIZE": "256",
    "ADSEQ_EVALUATION__ORACLE_FUTURES": "20",
    "ADSEQ_EVALUATION__ORACLE_FUNNELS": "50",
    "ADSEQ_EVALUATION__BOOTSTRAP_SAMPLES": "20",
}

ARRIVED = ("events", "items", "users", "ads", "impressions")
"""The assets of a day that read its files."""

INFERRED = ("user_sequences", "item_features", "user_states", "item_embeddings")
"""The assets of a day that compute its states."""

PUBLISHED = (*INFERRED, "item_index", "online_states")
"""The assets of a day that compute its states and publish them."""


@dataclass(frozen=True)
class Step:
    """A run of a job, for one partition or none, of some of its assets or all, under a launchpad's settings."""

    job: str
    partition: str | None = None
    assets: Sequence[str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def environment(home: Home) -> dict[str, str]:
    """The environment of a process that works on ``home``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADSEQ_", "DAGSTER_", "MLFLOW_"))}
    return {**kept, **SETTINGS, "ADSEQ_HOME": str(home.root), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}


def adseq(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The ``adseq`` command, to its end."""
    return processes.run(ADSEQ, *arguments, environment=environment(home))


def start_adseq(home: Home, *arguments: str) -> Started:
    """The ``adseq`` command, just started; its output is one stream."""
    return processes.start(ADSEQ, *arguments, environment=environment(home), stderr=processes.STDOUT)


def execute(home: Home, steps: Sequence[Step]) -> list[dict[str, dict[str, Any]]]:
    """Run the steps in one process; each must succeed. Returns, a step, each asset's metadata as plain values."""
    process = start_execution(home, steps)
    printed, said = process.communicate()
    assert process.returncode == 0, printed[-4000:] + said[-8000:]
    return list(json.loads((home.root / "steps.json").read_text()))


def start_execution(home: Home, steps: Sequence[Step]) -> Started:
    """The process that runs the steps, just started."""
    what = json.dumps([asdict(step) for step in steps])
    arguments = (str(home.root / "steps.json"), what)
    return processes.start("from tests.assets.steps import main; main()", *arguments, environment=environment(home))


def days_of(days: Sequence[date], assets: Sequence[str] | None = None) -> list[Step]:
    """The daily job for each of the days, in the order given: of all its assets, or of those that a test asserts."""
    return [Step("daily", day.isoformat(), assets) for day in days]


def copy_of(home: Home, root: Path, *, with_day: date | None = None) -> Home:
    """An independent copy of a home and its landing zone; ``with_day`` has landed in it, too.

    Every run of the home must have ended on its own.
    """
    # The side files of SQLite are empty once the run has ended, and come and go while another test reads.
    copy = _copy(home, root, "*.db-shm", "*.db-wal")
    if with_day:
        write_day(Landing(copy.landing), WORLD, with_day)
    return copy


def copy_of_stopped(home: Home, root: Path) -> Home:
    """An independent copy of a home that no process uses, and of its landing zone.

    A process that was stopped leaves rows in the side files of SQLite: without them the databases are malformed.
    """
    return _copy(home, root)


def _copy(home: Home, root: Path, *left_out: str) -> Home:
    own = "landing-of-its-own"
    copy, landing = (
        Home(Path(shutil.copytree(home.root, root, ignore=shutil.ignore_patterns(own, *left_out)))),
        root / own,
    )
    shutil.copytree(home.landing, landing)
    copy.use_landing(landing)
    return copy

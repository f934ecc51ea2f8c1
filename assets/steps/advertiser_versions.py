"""The advertiser model's versions, and one day of its inference: what the assets of ``assets.advertisers`` do.

There is no gate between advertiser models: a version serves the days from its training day on once its embeddings and
everybody's candidates have been written. ``advertiser_deployments`` records what served each day, so that re-running
last Tuesday uses Tuesday's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from ml.models.layout import DEPLOYED
from warehouse.as_of import events_as_of, items_as_of, users_as_of
from warehouse.days import day_end
from warehouse.home import Home
from warehouse.sequences import all_user_sequences, user_sequences
from warehouse.states import write_candidates
from warehouse.tables import Tables, vectors

if TYPE_CHECKING:
    from ml.models.advertiser_artifact import AdvertiserArtifact

VERSIONS, DEPLOYMENTS, EMBEDDINGS = "advertiser_versions", "advertiser_deployments", "advertiser_embeddings"
NO_MODEL = (
    "No advertiser model had been trained by {day}: nothing is predicted for it. The job `retrain` (or `adseq run "
    "--retrain`) trains one, which serves the days from the newest ingested one on."
)


@dataclass(frozen=True)
class AdvertiserVersion:
    """A trained advertiser model: its directory holds ``deployed`` and the networks of the report."""

    name: str
    trained_day: date  # the newest day it learnt from; everybody's candidates are as of this day
    run_id: str  # MLflow
    directory: Path

    def load(self) -> AdvertiserArtifact:
        """The deployed model."""
        from ml.models.advertiser_artifact import AdvertiserArtifact

        return AdvertiserArtifact.load(self.directory / DEPLOYED)


def record_version(tables: Tables, version: AdvertiserVersion) -> None:
    """Let a version serve from now on."""
    row = {"trained_day": version.trained_day, "run_id": version.run_id, "created": datetime.now(UTC)}
    tables.write(VERSIONS, pl.DataFrame([row]), {"model_version": version.name})


def versions(tables: Tables, home: Home) -> list[AdvertiserVersion]:
    """Every version that may serve, oldest first."""
    if not tables.exists(VERSIONS):
        return []
    rows = tables.scan(VERSIONS).collect().sort("created").rows(named=True)
    return [
        AdvertiserVersion(row["model_version"], row["trained_day"], row["run_id"], home.models / row["model_version"])
        for row in rows
    ]


def serving(tables: Tables, home: Home, day: date) -> AdvertiserVersion | None:
    """The version that serves ``day``: the recorded one, else the newest that was trained by then; None without one."""
    known = versions(tables, home)
    recorded = None
    if tables.exists(DEPLOYMENTS):
        rows = tables.scan(DEPLOYMENTS).filter(pl.col("day") == day).collect()
        recorded = rows["model_version"][0] if len(rows) else None
    usable = [each for each in known if each.trained_day <= day and recorded in (None, each.name)]
    return usable[-1] if usable else None


def record_deployment(tables: Tables, day: date, version: AdvertiserVersion) -> None:
    """Record what serves ``day``, once: a re-run keeps the first record."""
    if day not in tables.days(DEPLOYMENTS, "day"):
        tables.write(DEPLOYMENTS, pl.DataFrame([{"model_version": version.name}]), {"day": day})


def write_embeddings(workspace: Workspace, version: AdvertiserVersion, day: date) -> pl.DataFrame:
    """Embed the advertisers known by the end of ``day``. Returns advertiser_id, items, embedding."""
    from ml.models.advertiser_artifact import advertiser_embeddings

    tables, landing = workspace.tables, workspace.landing
    frame = advertiser_embeddings(
        version.load(),
        events_as_of(tables, landing, day, ["item_id", "advertiser_id", "event_time"]),
        items_as_of(tables, landing, day),
        day_end(day, landing.manifest.time_zone).timestamp(),
    )
    tables.write(EMBEDDINGS, frame, {"model_version": version.name, "day": day})
    return frame


def predict_day(workspace: Workspace, version: AdvertiserVersion, day: date) -> pl.DataFrame:
    """Candidates of the users who were active on ``day``, as of its end; on the version's training day those of
    everybody, each from their own last active day. Returns what was written."""
    tables, shape = workspace.tables, workspace.settings.sequences
    if day == version.trained_day:
        sequences = all_user_sequences(tables, workspace.landing, day, shape, workspace.settings.data.memory_gib)
    elif day in tables.days("user_sequences", "day"):
        sequences = tables.read("user_sequences", {"day": day})
    else:
        sequences = user_sequences(tables, workspace.landing, day, shape, workspace.settings.data.memory_gib)
    return _predict(workspace, version, day, sequences)


def _predict(workspace: Workspace, version: AdvertiserVersion, day: date, sequences: pl.DataFrame) -> pl.DataFrame:
    from ml.models.advertiser_artifact import candidates, user_vectors

    tables = workspace.tables
    sequences = sequences.sort("user_id")
    index = tables.read(EMBEDDINGS, {"model_version": version.name, "day": day}).sort("advertiser_id")
    items, people = items_as_of(tables, workspace.landing, day), users_as_of(tables, day)
    users = user_vectors(version.load(), items, sequences, people, workspace.settings.inference)
    depth = workspace.settings.advertisers.list_depth
    frame = candidates(sequences["user_id"], users, index, vectors(index["embedding"]), depth)
    write_candidates(tables, version.name, day, frame)
    return frame


def all_finite(embeddings: pl.DataFrame, predicted: pl.DataFrame) -> bool:
    """Whether every embedding and every score is a number."""
    return bool(np.isfinite(vectors(embeddings["embedding"])).all() and predicted["scores"].explode().is_finite().all())

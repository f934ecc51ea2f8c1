"""One day of inference for one advertiser model version: the index's embeddings, and each user's advertisers."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.versions import ModelVersion
from warehouse.as_of import users_as_of
from warehouse.days import day_end
from warehouse.sequences import all_user_sequences
from warehouse.states import write_candidates
from warehouse.stored_sequences import sequences_of_day
from warehouse.tables import vectors

EMBEDDINGS = "advertiser_embeddings"


def write_embeddings(workspace: Workspace, version: ModelVersion, day: date) -> pl.DataFrame:
    """Embed the advertisers known by the end of ``day``. Returns advertiser_id, items, embedding."""
    from ml.models.advertiser_artifact import advertiser_embeddings

    artifact = workspace.advertiser_model(version.deployed)
    frame = advertiser_embeddings(
        artifact,
        workspace.counted_events(day, artifact.settings.features.statistics_windows_days),
        workspace.items_as_of(day),
        day_end(day, workspace.landing.manifest.time_zone).timestamp(),
    )
    workspace.tables.write(EMBEDDINGS, frame, {"model_version": version.name, "day": day})
    return frame


def predict_day(workspace: Workspace, version: ModelVersion, day: date) -> pl.DataFrame:
    """Write the advertiser lists of the users who were active on ``day``, as of its end. Returns the written rows.

    On the version's training day everybody gets a list, each user as of the user's own last active day.
    """
    shape = workspace.advertiser_model(version.deployed).settings.sequences
    tables, landing, memory = workspace.tables, workspace.landing, workspace.settings.data.memory_gib
    if day == version.trained_day:
        sequences = all_user_sequences(tables, landing, day, settings=shape, memory_gib=memory)
    else:
        sequences = sequences_of_day(tables, landing, day, shape=shape, memory_gib=memory)
    return _predict(workspace, version, day, sequences)


def _predict(workspace: Workspace, version: ModelVersion, day: date, sequences: pl.DataFrame) -> pl.DataFrame:
    from ml.models.advertiser_artifact import candidates, user_vectors

    tables = workspace.tables
    sequences = sequences.sort("user_id")
    index = tables.read(EMBEDDINGS, {"model_version": version.name, "day": day}).sort("advertiser_id")
    items, people = workspace.items_as_of(day), users_as_of(tables, day)
    artifact = workspace.advertiser_model(version.deployed)
    users = user_vectors(artifact, items, sequences, users=people, settings=workspace.settings.inference)
    depth = workspace.settings.advertisers.list_depth
    frame = candidates(sequences["user_id"], users, index, vectors=vectors(index["embedding"]), depth=depth)
    write_candidates(tables, version.name, day, frame)
    return frame


def all_finite(embeddings: pl.DataFrame, predicted: pl.DataFrame) -> bool:
    """Whether every embedding and every score is a number."""
    return bool(np.isfinite(vectors(embeddings["embedding"])).all() and predicted["scores"].explode().is_finite().all())

"""One day of inference for one advertiser model version: the index's embeddings, and each user's advertisers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.versions import ModelVersion
from engine.engine import StageRun, Work
from warehouse.as_of import users_as_of
from warehouse.days import day_end
from warehouse.sequences import SequenceSource, all_sequences, gathered
from warehouse.states import candidates_of_day, write_candidates
from warehouse.stored_sequences import day_sequences
from warehouse.tables import vectors
from warehouse.user_buckets import UserBucket

EMBEDDINGS = "advertiser_embeddings"
FIRST_ROWS = 5


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


@dataclass(frozen=True)
class Predicted:
    """The advertiser lists of a day, as they were written.

    Attributes:
        users: the users with a list.
        shortest: the length of the shortest list; 0 without a list.
        advertisers: the number of distinct advertisers in the lists.
        finite: whether every score is a number.
        first: the first few rows.
    """

    users: pl.Series
    shortest: int
    advertisers: int
    finite: bool
    first: pl.DataFrame


def predict_day(workspace: Workspace, version: ModelVersion, day: date) -> Predicted:
    """Write the advertiser lists of the users who were active on ``day``, as of its end.

    On the version's training day everybody gets a list, each user as of the user's own last active day.
    """
    shape = workspace.advertiser_model(version.deployed).settings.sequences
    tables, landing, data = workspace.tables, workspace.landing, workspace.settings.data
    sequences: SequenceSource
    if day == version.trained_day:
        sequences = all_sequences(tables, landing, day, settings=shape, data=data)
    else:
        sequences = day_sequences(tables, landing, day, shape=shape, data=data)
    index = tables.read(EMBEDDINGS, {"model_version": version.name, "day": day}).sort("advertiser_id")
    catalogue = _Catalogue(index, workspace.items_as_of(day), users_as_of(tables, day))
    stage = partial(_lists, workspace, version, catalogue, sequences)
    write_candidates(tables, version.name, day, StageRun(workspace.engine, stage, sequences.buckets))
    return _predicted(candidates_of_day(tables, version.name, day))


def _predicted(lists: pl.LazyFrame) -> Predicted:
    advertisers, scores = pl.col("advertiser_ids"), pl.col("scores")
    shortest, distinct, finite = (
        lists.select(
            advertisers.list.len().min().fill_null(0),
            advertisers.explode().drop_nulls().n_unique().alias("distinct"),
            scores.explode().is_finite().all(),
        )
        .collect(engine="streaming")
        .row(0)
    )
    users = lists.select("user_id").collect()["user_id"]
    return Predicted(users, shortest, distinct, finite, lists.head(FIRST_ROWS).collect())


@dataclass(frozen=True)
class _Catalogue:
    """The tables of a day that all lists are made with."""

    index: pl.DataFrame  # advertiser_id, embedding
    items: pl.DataFrame
    users: pl.DataFrame  # with demographics


def _lists(
    workspace: Workspace, version: ModelVersion, catalogue: _Catalogue, sequences: SequenceSource
) -> Work[UserBucket]:
    """Return the function from a bucket to the lists of its users."""
    from ml.models.advertiser_artifact import candidates, vector_encoder

    settings, artifact = workspace.settings, workspace.advertiser_model(version.deployed)
    encoded = vector_encoder(artifact, catalogue.items, users=catalogue.users, settings=settings.inference)
    advertisers, depth = vectors(catalogue.index["embedding"]), settings.advertisers.list_depth

    def of_bucket(bucket: UserBucket) -> Iterator[pl.DataFrame]:
        for users, embedded in encoded(gathered(sequences.batches(bucket))):
            yield candidates(users, embedded, catalogue.index, vectors=advertisers, depth=depth)

    return of_bucket


def all_finite(embeddings: pl.DataFrame, predicted: Predicted) -> bool:
    """Whether every embedding and every score is a number."""
    return bool(np.isfinite(vectors(embeddings["embedding"])).all() and predicted.finite)

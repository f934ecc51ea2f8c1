"""The daily inference of a deployed model: states of a table of sequences, and embeddings of items and users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.context import no_context
from ml.features.event_log import event_log_of_sequences, newest
from ml.features.items import MAXIMUM_INTERESTS, ItemFeatures
from ml.models.artifact import ModelArtifact
from ml.models.batched_forward import embed_users, encode_states
from ml.models.tensors import CatalogueTensors
from settings import InferenceSettings


def state_encoder(
    artifact: ModelArtifact, features: ItemFeatures, settings: InferenceSettings
) -> Callable[[Iterable[pl.DataFrame]], Iterator[pl.DataFrame]]:
    """Return the function that encodes a user_sequences table (one row a user) under a catalogue, batch by batch.

    The function yields user_id, events, last_event_time and state (list of W floats), in the order of the batch.
    """
    catalogue, shape = CatalogueTensors(features), artifact.settings.features

    def encoded(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for sequences in batches:
            log = event_log_of_sequences(
                sequences,
                features.item_ids,
                artifact.event_names,
                advertiser_buckets=shape.advertiser_buckets,
                advertiser_hashes=shape.advertiser_hashes,
            )
            slices = newest(log, np.arange(log.users), log.offsets[1:], artifact.settings.sequences.length)
            states = encode_states(artifact.network, catalogue, log, slices=slices, settings=settings)
            yield sequences.select(
                "user_id",
                events=pl.col("event_time").list.len().cast(pl.Int64),
                last_event_time=pl.col("event_time").list.last(),
            ).with_columns(pl.Series("state", states).cast(pl.List(pl.Float32)))

    return encoded


def states_of_sequences(
    artifact: ModelArtifact, features: ItemFeatures, sequences: pl.DataFrame, settings: InferenceSettings
) -> pl.DataFrame:
    """Return the states of a user_sequences table as ``state_encoder`` does, sorted by user_id."""
    return next(state_encoder(artifact, features, settings)([sequences.sort("user_id")]))


def user_embeddings(
    artifact: ModelArtifact, catalogue: CatalogueTensors, states: NDArray[np.float32], demographics: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the user embeddings [users, W] on the home feed (no context).

    The inputs are stored states [users, W] and demographics [users, 3].
    """
    context = no_context(len(states), MAXIMUM_INTERESTS)
    return embed_users(artifact.network, catalogue, states, context=context, demographics=demographics)

"""A trained advertiser model on disk, and the embeddings and candidates that the model derives from tables alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.advertiser_period import AdvertiserData, AdvertiserPeriod, advertiser_data
from ml.features.advertisers import advertiser_ids, build_advertisers
from ml.features.dataset import demographic_buckets
from ml.features.event_log import event_log_of_sequences, newest
from ml.features.items import build_item_features
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.artifact import Artifact
from ml.models.batched_forward import embed_advertisers, embed_histories
from ml.models.encoders import ModelShape
from ml.models.tensors import CatalogueTensors
from ml.retrieval.lists import NO_ITEM, search
from settings import InferenceSettings, Settings


@dataclass(frozen=True)
class AdvertiserArtifact(Artifact[AdvertiserNetwork]):
    """An advertiser model that can be deployed."""

    @staticmethod
    def untrained(shape: ModelShape, settings: Settings) -> AdvertiserNetwork:
        return AdvertiserNetwork(shape, settings.model, settings.features, settings.training.temperature)

    def data(self, known: AdvertiserPeriod) -> AdvertiserData:
        """Return the features and advertisers of ``known`` under this model's basis and vocabulary."""
        return advertiser_data(known, self.settings, self.event_names, self.basis)


def advertiser_embeddings(
    artifact: AdvertiserArtifact, events: pl.DataFrame, items: pl.DataFrame, seconds: float
) -> pl.DataFrame:
    """Return the vectors of the advertiser index as of ``seconds``.

    The index holds every advertiser with an event or an available item before ``seconds``.

    Args:
        events: item_id, advertiser_id, event_time. items: the catalogue, sorted by item_id.

    Returns:
        advertiser_id, items (available then), embedding (list of W + D floats); sorted by advertiser_id.
    """
    shape, ids = artifact.settings.features, advertiser_ids(events, items)
    features = build_item_features(items, artifact.basis, shape)
    advertisers = build_advertisers(features, events, items, ids=ids, settings=shape)
    known = advertisers.known(seconds)
    profiles = advertisers.at(seconds).take(known)
    vectors = embed_advertisers(artifact.network, profiles)
    return pl.DataFrame(
        {
            "advertiser_id": ids.gather(known),
            "items": np.expm1(profiles.size[:, 0]).round().astype(np.int64),
            "embedding": pl.Series(vectors).cast(pl.List(pl.Float32)),
        }
    )


def user_vectors(
    artifact: Artifact[AdvertiserNetwork],
    items: pl.DataFrame,
    sequences: pl.DataFrame,
    *,
    users: pl.DataFrame,
    settings: InferenceSettings,
) -> NDArray[np.float32]:
    """Return the user embeddings [sequences, W + D] of a user_sequences table (one row a user, sorted by user_id).

    Args:
        items: the catalogue. users: user_id, age, gender, country.
    """
    _, vectors = next(vector_encoder(artifact, items, users=users, settings=settings)([sequences]))
    return vectors


Embedded = tuple[pl.Series, NDArray[np.float32]]
"""Users, and their embeddings [users, W + D]."""


def vector_encoder(
    artifact: Artifact[AdvertiserNetwork], items: pl.DataFrame, *, users: pl.DataFrame, settings: InferenceSettings
) -> Callable[[Iterable[pl.DataFrame]], Iterator[Embedded]]:
    """Return the function from batches of sequences to the embeddings that ``user_vectors`` returns of each."""
    items, features = items.sort("item_id"), artifact.settings.features
    catalogue = CatalogueTensors(build_item_features(items, artifact.basis, features))

    def encoded(batches: Iterable[pl.DataFrame]) -> Iterator[Embedded]:
        for sequences in batches:
            log = event_log_of_sequences(
                sequences,
                items["item_id"],
                artifact.event_names,
                advertiser_buckets=features.advertiser_buckets,
                advertiser_hashes=features.advertiser_hashes,
            )
            known = users.filter(pl.col("user_id").is_in(log.user_ids.implode()))
            vectors = embed_histories(
                artifact.network,
                catalogue,
                log,
                slices=newest(log, np.arange(log.users), log.offsets[1:], artifact.settings.sequences.length),
                demographics=demographic_buckets(known, log.user_ids),
                settings=settings,
            )
            yield log.user_ids, vectors

    return encoded


def candidates(
    user_ids: pl.Series,
    users: NDArray[np.float32],
    index: pl.DataFrame,
    *,
    vectors: NDArray[np.float32],
    depth: int,
) -> pl.DataFrame:
    """Return each user's best advertisers.

    Args:
        user_ids: [users], and their embeddings [users, W + D].
        index: advertiser_id, and ``vectors`` [advertisers, W + D].

    Returns:
        user_id, advertiser_ids and scores (inner products), lists of at most ``depth``, best first.
    """
    lists = search(users, vectors, min(depth, len(index)))
    assert not (lists.items == NO_ITEM).any()  # nothing is excluded and no list is longer than the index
    ids = index["advertiser_id"].gather(lists.items.ravel())
    queries = len(user_ids)
    offsets = np.repeat(np.arange(queries), lists.depth)
    flat = pl.DataFrame({"row": offsets, "advertiser_ids": ids, "scores": lists.scores.ravel()})
    grouped = flat.group_by("row", maintain_order=True).agg("advertiser_ids", "scores").drop("row")
    return pl.concat([user_ids.alias("user_id").to_frame(), grouped], how="horizontal")

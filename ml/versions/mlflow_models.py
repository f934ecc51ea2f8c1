"""The user towers as MLflow pyfuncs: events in, user embeddings out (home feed: no context)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import AnyType, ColSpec, Schema

from ml.examples.context import no_context
from ml.features.content import ContentBasis
from ml.features.dataset import Dataset, demographic_buckets
from ml.features.event_log import build_event_log, newest
from ml.features.items import MAXIMUM_INTERESTS, build_item_features, catalogue_statistics
from ml.models.advertiser_artifact import user_vectors
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.artifact import Artifact, Network
from ml.models.batched_forward import embed_users, encode_states
from ml.models.head_export import export_head, inputs_of
from ml.models.item_model import TwoTower
from ml.models.tensors import CatalogueTensors
from ml.versions.requirements import HEAD_LIBRARIES, requirements, script
from settings import FeatureSettings

SEQUENCE_COLUMNS = ("user_id", "item_id", "advertiser_id", "event_name", "event_time")
TIME = "event_time"
# A caller has times as numbers, as datetimes or as text, and a log may name items or advertisers alone.
INPUTS = Schema(
    [
        ColSpec("string", "user_id"),
        ColSpec("string", "item_id", required=False),
        ColSpec("string", "advertiser_id", required=False),
        ColSpec("string", "event_name"),
        ColSpec(AnyType(), TIME),  # type: ignore[no-untyped-call]
    ]
)
EXAMPLE_EVENTS = 20


class UserTower(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """A user tower as MLflow loads it.

    Input: one row an event: user_id, event_name, event_time, and item_id, advertiser_id or both. A time is a number of
    seconds since 1970 UTC, a datetime, or text (ISO 8601); without a zone it is UTC. Output: one row a user with the
    user's embedding. The model has no catalogue: an event without advertiser_id has no advertiser here, while serving
    takes the advertiser of the event's item.
    """

    def __init__(
        self, kind: type[Artifact[Network]], embed: Callable[[Artifact[Network], pd.DataFrame], pd.DataFrame]
    ) -> None:
        self.kind, self.embed = kind, embed

    def load_context(self, context: Any) -> None:
        self.artifact = self.kind.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return self.embed(self.artifact, model_input)


def input_example(events: pl.DataFrame) -> pd.DataFrame:
    """Return the first events as a caller of the registered model would give them: times in seconds since 1970 UTC."""
    example = events.head(EXAMPLE_EVENTS).to_pandas()
    example["event_time"] = example["event_time"].astype("int64") / 1e6
    return pd.DataFrame(example[list(SEQUENCE_COLUMNS)])


def event_signature(output: pd.DataFrame) -> ModelSignature:
    """Return the signature of a user tower: ``INPUTS``, and outputs as in ``output``."""
    return ModelSignature(INPUTS, infer_signature(output).inputs)


def event_rows(events: pd.DataFrame) -> pl.DataFrame:
    """Convert a caller's events to rows of the log: sorted by user, then time; equal times stay in the given order.

    Raises:
        ValueError: a time cannot be read.
    """
    known = events.reindex(columns=list(SEQUENCE_COLUMNS))
    names = [name for name in SEQUENCE_COLUMNS if name != TIME]
    unit = "s" if pd.api.types.is_numeric_dtype(known[TIME]) else None
    times = pd.to_datetime(known[TIME], unit=unit, utc=True, format=None if unit else "ISO8601")
    frame = pl.from_pandas(known[names], schema_overrides=dict.fromkeys(names, pl.String))
    time = pl.Series(TIME, times.to_numpy("datetime64[us]")).dt.replace_time_zone("UTC")
    return frame.with_columns(time).sort("user_id", TIME, maintain_order=True)


def embed_sequences(artifact: Artifact[TwoTower], events: pd.DataFrame) -> pd.DataFrame:
    """Return user embeddings without context: columns user_id, embedding (list of W floats)."""
    frame = event_rows(events)
    features = artifact.settings.features
    items = basis_items(artifact.basis)
    log = build_event_log(
        frame,
        items["item_id"],
        artifact.event_names,
        advertiser_buckets=features.advertiser_buckets,
        advertiser_hashes=features.advertiser_hashes,
    )
    item_features = build_item_features(items, artifact.basis, features)
    statistics = catalogue_statistics(
        items, log.offsite.item, log.seconds, windows_days=features.statistics_windows_days
    )
    no_users = pl.DataFrame(schema={"user_id": pl.String, "age": pl.Int32, "gender": pl.String, "country": pl.String})
    dataset = Dataset(
        item_features,
        artifact.basis,
        log,
        statistics,
        demographic_buckets(no_users, log.user_ids),
        artifact.event_names,
    )
    catalogue = CatalogueTensors(dataset.features)
    users = np.arange(log.users)
    slices = newest(log, users, log.offsets[1:], artifact.settings.sequences.length)
    states = encode_states(artifact.network, catalogue, log, slices=slices, settings=artifact.settings.inference)
    context = no_context(log.users, MAXIMUM_INTERESTS)
    embeddings = embed_users(artifact.network, catalogue, states, context=context, demographics=dataset.demographics)
    return pd.DataFrame({"user_id": log.user_ids.to_list(), "embedding": [row.tolist() for row in embeddings]})


def embed_events(artifact: Artifact[AdvertiserNetwork], events: pd.DataFrame) -> pd.DataFrame:
    """Return user embeddings among the advertisers: columns user_id, embedding (list of W + D floats)."""
    sequences = event_rows(events).group_by("user_id", maintain_order=True).agg(pl.all())
    nobody = pl.DataFrame(schema={"user_id": pl.String, "age": pl.Int32, "gender": pl.String, "country": pl.String})
    items, settings = basis_items(artifact.basis), artifact.settings.inference
    vectors = user_vectors(artifact, items, sequences, users=nobody, settings=settings)
    return pd.DataFrame({"user_id": sequences["user_id"].to_list(), "embedding": [row.tolist() for row in vectors]})


def basis_items(basis: ContentBasis) -> pl.DataFrame:
    """Return the items that the basis knows, with ids only: attributes are not part of the model."""
    ids = basis.items["item_id"].sort()
    interest = pl.Struct({"interest": pl.String, "confidence": pl.Float64})
    return pl.DataFrame({"item_id": ids}).with_columns(
        advertiser_id=pl.lit(None, pl.String),
        title=pl.lit(None, pl.String),
        category=pl.lit(None, pl.String),
        price=pl.lit(None, pl.Float64),
        interests=pl.lit(None, pl.List(interest)),
        embedding=pl.lit(None, pl.List(pl.Float32)),
        available_from=pl.lit(None, pl.Datetime("us", "UTC")),
        listed_from=pl.lit(None, pl.Datetime("us", "UTC")),
    )


def log_head(network: TwoTower, features: FeatureSettings, path: Path) -> str:
    """Export the head to ``path`` and log it to the active MLflow run as the model ``query_head``, with a signature.

    Returns:
        The address that MLflow loads the model from.
    """
    export_head(network, features, path)
    example = inputs_of(network, features, 2)
    output = np.zeros((2, network.embedding_width), np.float32)
    info = mlflow.pyfunc.log_model(
        name="query_head",
        python_model=script("query_head"),
        artifacts={"program": str(path)},
        signature=infer_signature(example, output),
        pip_requirements=requirements(HEAD_LIBRARIES),
    )
    return str(info.model_uri)

"""The advertiser model's user tower as an MLflow pyfunc: sequences in, user embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
import polars as pl

from ml.models.advertiser_artifact import AdvertiserArtifact, user_vectors
from ml.versions.pyfunc import basis_items, event_rows


class AdvertiserModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """Input: one row an event (user_id, item_id, advertiser_id, event_name, event_time in seconds), each user's
    oldest first. Output: one row a user with its embedding among the advertisers. The model has no catalogue: an event
    without advertiser_id leaves nothing in the memory of advertisers, where serving takes that of its item."""

    def load_context(self, context: Any) -> None:
        self.artifact = AdvertiserArtifact.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return embed_events(self.artifact, model_input)


def embed_events(artifact: AdvertiserArtifact, events: pd.DataFrame) -> pd.DataFrame:
    """User embeddings: columns user_id, embedding (list of W + D floats)."""
    sequences = event_rows(events).group_by("user_id", maintain_order=True).agg(pl.all())
    nobody = pl.DataFrame(schema={"user_id": pl.String, "age": pl.Int32, "gender": pl.String, "country": pl.String})
    vectors = user_vectors(artifact, basis_items(artifact.basis), sequences, nobody, artifact.settings.inference)
    return pd.DataFrame({"user_id": sequences["user_id"].to_list(), "embedding": [row.tolist() for row in vectors]})

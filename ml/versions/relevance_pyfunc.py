"""The relevance model as an MLflow pyfunc: features of pairs in, calibrated scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl

from ml.relevance.pair_features import FEATURE_NAMES
from ml.relevance.relevance_model import RelevanceModel


class RelevanceScorer(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """The relevance model as MLflow loads it.

    Input: one row a pair with surface, content_type and a column for each pair feature, NaN where not known. Output:
    trim_score (probability that a rater calls the pair relevant) and relevance (0 to 1).
    """

    def load_context(self, context: Any) -> None:
        self.model = RelevanceModel.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return scored(self.model, model_input)


def example_pairs(features: np.ndarray[Any, Any], cells: pl.Series) -> pd.DataFrame:
    """Return pairs as a caller of the registered model would give them.

    Args:
        features: [pairs, features]. cells: [pairs] of ``ml.relevance.calibration.cells_of``.
    """
    parts = cells.str.splitn(".", 2).struct
    table = pd.DataFrame(features, columns=list(FEATURE_NAMES))
    table.insert(0, "content_type", parts.field("field_1").to_list())
    table.insert(0, "surface", parts.field("field_0").to_list())
    return table


def scored(model: RelevanceModel, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of pairs, one row each."""
    features = pairs[list(FEATURE_NAMES)].to_numpy(np.float32)
    scores = model.scores(features, pl.from_pandas(pairs[["surface", "content_type"]]))
    return pd.DataFrame({"trim_score": scores.trim, "relevance": scores.relevance})

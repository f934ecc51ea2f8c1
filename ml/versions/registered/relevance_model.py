"""The relevance model as MLflow loads it."""

import mlflow

from ml.versions.relevance_pyfunc import RelevanceScorer

mlflow.models.set_model(RelevanceScorer())

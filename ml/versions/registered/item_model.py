"""The item model as MLflow loads it."""

import mlflow

from ml.models.artifact import ModelArtifact
from ml.versions.mlflow_models import UserTower, embed_sequences

mlflow.models.set_model(UserTower(ModelArtifact, embed_sequences))

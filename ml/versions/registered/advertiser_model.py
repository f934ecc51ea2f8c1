"""The advertiser model as MLflow loads it."""

import mlflow

from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.versions.mlflow_models import UserTower, embed_events

mlflow.models.set_model(UserTower(AdvertiserArtifact, embed_events))

"""The advertiser model as MLflow loads it."""

import mlflow

from ml.versions.advertiser_pyfunc import AdvertiserModel

mlflow.models.set_model(AdvertiserModel())

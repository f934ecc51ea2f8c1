"""The advertiser model as MLflow loads it."""

import mlflow

from ml.advertisers.pyfunc import AdvertiserModel

mlflow.models.set_model(AdvertiserModel())

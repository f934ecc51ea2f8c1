"""The item model as MLflow loads it."""

import mlflow

from ml.versions.pyfunc import SequenceModel

mlflow.models.set_model(SequenceModel())

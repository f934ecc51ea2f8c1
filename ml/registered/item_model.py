"""The item model as MLflow loads it."""

import mlflow

from ml.pyfunc import SequenceModel

mlflow.models.set_model(SequenceModel())

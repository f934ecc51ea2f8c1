"""The exported head as MLflow loads it; the script needs torch and no module of adseq."""

import warnings

import mlflow
import torch

# MLflow wants type hints that it can make a schema of, and has none for a dictionary of arrays. It sets filters of its
# own before it warns, so that a filter would not do.
with warnings.catch_warnings(record=True):

    class HeadModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
        """The exported head for MLflow's clients: a dictionary of arrays in, query embeddings out."""

        def load_context(self, context):  # type: ignore[no-untyped-def]
            self.program = torch.export.load(context.artifacts["program"]).module()

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            with torch.inference_mode():
                return self.program(*map(torch.from_numpy, model_input.values())).numpy()


mlflow.models.set_model(HeadModel())

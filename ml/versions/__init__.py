"""One training of a version: its fits, MLflow, and the registered models."""

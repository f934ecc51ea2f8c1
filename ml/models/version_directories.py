"""Directories of a model version under ``models/<version>``. Dagster loads this module: it imports nothing heavy."""

from __future__ import annotations

DEPLOYED = "deployed"
ADVERTISER_EVALUATION, ADVERTISER_EVALUATION_POOLING = "evaluation", "evaluation-mean_pooling"


def evaluation_part(model: str) -> str:
    """Return the directory of a comparison model within its version."""
    return f"evaluation-{model}"

"""The directories of a model version under ``models/<version>``. The module imports nothing heavy, because Dagster
loads it.
"""

from __future__ import annotations

DEPLOYED = "deployed"
ADVERTISER_EVALUATION, ADVERTISER_EVALUATION_POOLING = "evaluation", "evaluation-mean_pooling"


def evaluation_part(model: str) -> str:
    """Return the directory of a comparison model within its version."""
    return f"evaluation-{model}"

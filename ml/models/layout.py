"""What a model version consists of: directories under ``models/<version>``. Imports nothing heavy: Dagster loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.evaluation.model_lists import ModelName

DEPLOYED = "deployed"


def evaluation_part(model: ModelName) -> str:
    """The directory of a comparison model within its version."""
    return f"evaluation-{model.value}"

"""What a model version consists of: directories under ``models/<version>``."""

from __future__ import annotations

from ml.comparison import ModelName

DEPLOYED = "deployed"


def evaluation_part(model: ModelName) -> str:
    """The directory of a comparison model within its version."""
    return f"evaluation-{model.value}"

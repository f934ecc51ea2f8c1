"""The engine of a training, asked before the training prepares its data."""

from __future__ import annotations

import dagster as dg

from assets.common.workspace import Workspace
from engine.engine import Engine, EngineFailed


def training_engine(workspace: Workspace) -> Engine:
    """Return the engine of the workspace, which has places for the processes of a training.

    Raises:
        EngineFailed: no cluster answers.
        dg.Failure: the cluster is too small. No other try follows, because a cluster does not grow in seconds.
    """
    engine = workspace.engine
    try:
        engine.require_processes(workspace.settings.training.processes)
    except EngineFailed as too_small:
        raise dg.Failure(str(too_small), allow_retries=False) from too_small
    return engine

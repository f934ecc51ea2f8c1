"""A training on a cluster that is too small fails at once, and is not tried again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import dagster as dg
import pytest

from assets.common.workspace import Workspace
from assets.steps.training_engine import training_engine
from engine.engine import Engine, EngineFailed
from settings import Settings, TrainingSettings


class OfTwoCores:
    """The part of an engine that a training asks before it begins."""

    def require_processes(self, processes: int) -> None:
        if processes > 2:
            raise EngineFailed("add nodes")


def workspace_of(home: Path, processes: int) -> Workspace:
    workspace = Workspace(Settings(home=home, training=TrainingSettings(processes=processes)))
    vars(workspace)["engine"] = cast(Engine, OfTwoCores())
    return workspace


def test_a_cluster_that_is_too_small_is_asked_once(tmp_path: Path) -> None:
    assert isinstance(training_engine(workspace_of(tmp_path, 2)), OfTwoCores)
    with pytest.raises(dg.Failure, match="add nodes") as failure:
        training_engine(workspace_of(tmp_path, 3))
    assert not failure.value.allow_retries

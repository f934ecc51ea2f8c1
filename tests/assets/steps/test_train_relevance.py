"""The training of a relevance model in a home: how many labels it needs, and what a day that runs again leaves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps.relevance_versions import (
    RELEVANCE_MEASURES,
    RELEVANCE_VERSIONS,
    record_none,
    record_version,
    relevance_version,
)
from assets.steps.train_relevance import _Training
from ml.features.text import TextBasis
from ml.relevance.pair_features import PairCatalogue
from settings import Settings
from tests.ml.relevance.test_relevance_model import judged

DAY = date(2026, 3, 1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Settings(home=tmp_path))


def test_a_first_model_needs_no_more_labels_than_the_setting_says(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = judged(places=21)
    assert len(labels) == workspace.settings.relevance.minimum_labels + 4
    recorded: list[Mapping[str, Any]] = []
    monkeypatch.setattr(_Training, "_recorded", lambda _, measured, **said: recorded.append(said))
    catalogue = cast(PairCatalogue, SimpleNamespace(text=TextBasis.of(pl.Series(["Lamp", "Wok"]), 2, 0)))
    _Training(workspace, DAY, pl.DataFrame(), labels, catalogue).run({})
    [said] = recorded
    assert said["passed"]
    assert 0 < said["unseen"] < len(labels) / 4


def test_a_day_that_trains_nothing_when_it_runs_again_leaves_neither_version_nor_measures(workspace: Workspace) -> None:
    record_none(workspace, DAY)  # nothing is there yet
    record_version(workspace, DAY, trained_until=1.0, passed=True, reason="the first")
    workspace.tables.write(RELEVANCE_MEASURES, pl.DataFrame({"model": ["new"]}), {"day": DAY})
    record_none(workspace, DAY)
    assert relevance_version(workspace, DAY) is None
    assert workspace.tables.days(RELEVANCE_VERSIONS, "day") == workspace.tables.days(RELEVANCE_MEASURES, "day") == []

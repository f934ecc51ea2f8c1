"""The training of a relevance model in a home: how many labels it needs, and what a day that runs again leaves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from assets.common.workspace import Workspace
from assets.steps import train_relevance as step
from assets.steps.relevance_versions import (
    RELEVANCE_MEASURES,
    RELEVANCE_VERSIONS,
    record_none,
    record_version,
    relevance_version,
)
from assets.steps.train_relevance import RelevanceTraining, _Training, train_relevance
from ml.features.text import TextBasis
from ml.relevance.pair_features import PairCatalogue
from settings import RelevanceSettings, Settings
from tests.ml.relevance.test_relevance_model import judged
from warehouse.contracts import SCHEMAS, LandingTable

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
    _Training(workspace, DAY, pl.DataFrame(), labels, catalogue, None).run({})
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


def land_labels(workspace: Workspace, day: date, number: int) -> None:
    schema = pl.Schema(SCHEMAS[LandingTable.relevance_labels])
    rows = pl.DataFrame({"label": [3] * number}, schema={"label": schema["label"]})
    absent = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name != "label"]
    workspace.tables.write("relevance_labels", rows.with_columns(absent).select(schema.names()), {"arrival_date": day})


@pytest.fixture
def trainings(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The days on which a training has begun; each records a version that the gate lets in, but for the day refused."""
    begun: list[date] = []

    def trained(own: Workspace, day: date, *_: object) -> RelevanceTraining:
        begun.append(day)
        record_version(own, day, trained_until=float(day.toordinal()), passed=day != REFUSED, reason="")
        return RelevanceTraining(day != REFUSED, "", 0, 0)

    monkeypatch.setattr(step, "_trained", trained)
    monkeypatch.setattr("ml.relevance.relevance_model.RelevanceModel.load", lambda _: None)
    return begun


DAYS = [DAY + timedelta(days=number) for number in range(8)]
REFUSED = DAYS[4]


def test_a_new_model_is_trained_when_labels_have_become_more_by_a_share(
    workspace: Workspace, trainings: list[date]
) -> None:
    arrived = [3000, 100, 150, 60, 400, 50, 10, 300]
    for day, number in zip(DAYS, arrived, strict=True):
        land_labels(workspace, day, number)
    found = [train_relevance(workspace, day, {}) for day in DAYS]
    # 300 are a tenth of 3,000; 331 of 3,310. The next day repeats what was refused.
    assert trainings == [DAYS[0], DAYS[3], DAYS[4], DAYS[5]]
    counted = [(each.since, each.due) for each in found[:5]]
    assert counted == [
        (None, None),
        (100, 300),
        (250, 300),
        (310, 300),
        (400, 331),
    ]
    assert "the next training comes with 300" in found[1].reason
    assert (found[2].labels, found[2].passed, found[2].url) == (3250, False, None)
    for day in (DAYS[2], DAYS[3], DAYS[6]):  # a day that runs again sees what it saw
        trainings.clear()
        again = train_relevance(workspace, day, {})
        assert again == found[DAYS.index(day)]
        assert trainings == ([day] if day == DAYS[3] else [])


def test_few_labels_wait_for_as_many_as_the_gate_needs(workspace: Workspace, trainings: list[date]) -> None:
    for day, number in zip(DAYS, [600, 199, 1], strict=False):
        land_labels(workspace, day, number)
    for day in DAYS[:3]:
        train_relevance(workspace, day, {})
    assert trainings == [DAYS[0], DAYS[2]]


def test_a_model_that_cannot_be_read_is_followed_by_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(Settings(home=tmp_path, relevance=RelevanceSettings(retrain_share=1)))
    land_labels(workspace, DAY, 600)
    record_version(workspace, DAY, trained_until=1.0, passed=True, reason="of a home whose files are gone")
    begun: list[object] = []

    def trained(*given: object) -> RelevanceTraining:
        begun.append(given[2])
        return RelevanceTraining(True, "", 600, 0)

    monkeypatch.setattr(step, "_trained", trained)
    found = train_relevance(workspace, DAYS[1], {})
    assert begun == [None]
    assert found.since is None

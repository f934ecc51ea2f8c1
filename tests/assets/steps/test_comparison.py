"""The reports of a training share one comparison."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import ml.evaluation.item_report
from assets.common.workspace import Workspace
from assets.steps.comparison import evaluation_lists_of, newest_comparison
from assets.steps.context_report import report_context
from assets.steps.diversity_report import report_diversity
from assets.steps.recall_report import report_recall
from ml.evaluation.model_names import ModelName
from ml.evaluation.popularity_front import POPULARITY_WEIGHTS
from settings import Settings
from tests.assets.world import SETTINGS, copy_of
from tests.flow import Ran


@pytest.mark.slow
def test_four_reports_of_a_run_load_one_comparison_and_measure_each_model_once(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    calls: list[str] = []

    def counted(name: str) -> None:
        function = getattr(ml.evaluation.item_report, name)

        def counting(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(ml.evaluation.item_report, name, counting)

    counted("load_comparison")
    counted("measure")
    workspace = Workspace(Settings(home=copy_of(ran.home, tmp_path / "home").root))
    lists = evaluation_lists_of(workspace, newest_comparison(workspace))
    report_recall(workspace, {})
    front = report_diversity(workspace, {}).kept.table.filter(segment="popularity_weight")
    assert front["group"].unique().sort().to_list() == ["0", "0.05", "0.1", "0.2"]
    assert report_context(workspace, {})
    assert calls == ["load_comparison", *["measure"] * (lists["model"].n_unique() + len(POPULARITY_WEIGHTS))]
    stored = ran.tables.read("evaluation_lists", {"model_version": "item-1"})
    assert lists.sort("model", "user_id")["items"].equals(stored.sort("model", "user_id")["items"])

    another_run = Workspace(workspace.settings)
    newest_comparison(another_run)
    assert calls.count("load_comparison") == 2


@pytest.mark.slow
def test_the_reports_show_the_additional_models_that_the_version_was_trained_with(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of the version says which; here the contextual network stands in for one."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    home = copy_of(ran.home, tmp_path / "home")
    additional, part = ModelName.contextual_cross_attention, home.models / "item-1" / "evaluation-contextual"
    assert additional not in newest_comparison(Workspace(Settings(home=home.root))).comparison.artifacts
    shutil.copytree(part, part.with_name(f"evaluation-{additional}"))
    workspace = Workspace(Settings(home=home.root))
    lists = evaluation_lists_of(workspace, newest_comparison(workspace))
    one, other = (lists.filter(model=model).sort("user_id") for model in (additional, ModelName.contextual))
    assert len(one)
    assert one["items"].equals(other["items"])
    workspace.tables.write("evaluation_lists", lists, {"model_version": "item-1"})
    assert set(report_recall(workspace, {}).kept.at(10)) >= {additional, ModelName.contextual}
    found = report_context(workspace, {})
    assert found
    assert additional in set(found.kept.table["model"])

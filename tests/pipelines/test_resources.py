"""Launchpad over environment over default, for every setting, by effect."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.common.resources import WorkspaceResource, _launchpad_group, writing
from assets.common.workspace import Workspace
from settings import AdditionalModel, ContextRecipe, EvaluationSettings, Group, IndexKind, Settings
from tests import processes
from warehouse.home import Home, HomeLocked

PROJECT = Path(__file__).resolve().parents[2]


def effective(config: dict[str, Any]) -> Settings:
    """The settings that an asset sees under a launchpad's resource config."""
    seen: list[Settings] = []

    @dg.asset
    def probe(workspace: dg.ResourceParam[Workspace]) -> None:
        seen.append(workspace.settings)

    dg.materialize(
        [probe],
        resources={"workspace": WorkspaceResource()},
        run_config={"resources": {"workspace": {"config": config}}},
    )
    return seen[0]


def test_without_overrides_an_asset_sees_the_plain_settings() -> None:
    assert effective({}) == Settings()


def test_the_launchpad_overrides_values_of_every_kind() -> None:
    seen = effective(
        {
            "training": {"epochs": 1, "learning_rate": 0.5},
            "features": {"statistics_windows_days": [2.0, 3.0]},
            "examples": {"label_weights": {"lead": 0.25}},
            "inference": {"bfloat16": True},
            "index": {"kind": "hnsw"},
            "context": {"recipe": "own_interests"},
            "evaluation": {"additional_models": ["contextual_cross_attention"]},
        }
    )
    assert (seen.training.epochs, seen.training.learning_rate) == (1, 0.5)
    assert seen.training.batch_size == Settings().training.batch_size
    assert seen.features.statistics_windows_days == [2.0, 3.0]
    assert seen.examples.label_weights == {"lead": 0.25}
    assert seen.inference.bfloat16 is True
    assert seen.index.kind is IndexKind.hnsw
    assert seen.context.recipe is ContextRecipe.own_interests
    assert seen.evaluation.additional_models == [AdditionalModel.contextual_cross_attention]


def test_the_launchpad_shows_the_list_of_names_of_the_environment() -> None:
    named = EvaluationSettings(additional_models=[AdditionalModel.max_pooling])
    shown = _launchpad_group(named)
    field = shown.to_config_schema().as_field().config_type.fields["additional_models"]  # type: ignore[attr-defined]
    assert json.loads(field.default_value_as_json_str) == ["max_pooling"]


def test_every_setting_is_in_the_launchpad() -> None:
    groups = {name: group for name, group in Settings() if isinstance(group, Group)}
    assert set(WorkspaceResource.model_fields) == set(groups)
    for name, group in groups.items():
        assert set(type(getattr(WorkspaceResource(), name)).model_fields) == set(type(group).model_fields)


def test_a_wrong_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=r'unexpected config entry "maximum_epoch".*batch_size'):
        effective({"training": {"maximum_epoch": 1}})


def test_a_value_that_breaks_the_settings_rule_fails_the_run_with_the_rule() -> None:
    with pytest.raises(dg.DagsterError) as failure:
        effective({"training": {"batch_size": 1}})
    assert "greater than or equal to 2" in str(failure.value.__cause__)


@pytest.mark.slow
def test_the_environment_stands_behind_a_partial_override(tmp_path: Path) -> None:
    """The launchpad overrides one field of a group; another field of it keeps the environment's value."""
    script = """
import dagster as dg
from assets.common.resources import WorkspaceResource
from assets.common.workspace import Workspace
@dg.asset
def probe(workspace: dg.ResourceParam[Workspace]):
    training = workspace.settings.training
    print("seen", training.batch_size, training.seed, training.corpus_negatives, workspace.home.root)
dg.materialize([probe], resources={"workspace": WorkspaceResource()},
    run_config={"resources": {"workspace": {"config": {"training": {"batch_size": 7}}}}})
"""
    environment = {
        **os.environ,
        "ADSEQ_HOME": str(tmp_path),
        "ADSEQ_TRAINING__BATCH_SIZE": "9",
        "ADSEQ_TRAINING__SEED": "11",
    }
    result = processes.run(script, environment=environment)
    default = Settings().training.corpus_negatives
    assert f"seen 7 11 {default} {tmp_path}" in result.stdout


def test_a_run_holds_the_homes_lock_and_a_second_process_is_told_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSEQ_HOME", str(tmp_path))
    refused: list[str] = []

    @dg.asset
    def probe(workspace: dg.ResourceParam[Workspace]) -> None:
        with pytest.raises(HomeLocked) as error, Home(tmp_path).writing("another process would do the same"):
            pass
        refused.append(str(error.value))

    dg.materialize([probe], resources={"workspace": WorkspaceResource()})
    assert "Dagster run" in refused[0]
    with Home(tmp_path).writing("afterwards it is free"):
        pass


def test_the_lock_is_taken_once_a_process(tmp_path: Path) -> None:
    home = Home(tmp_path)
    holder = home.root / "lock.holder.json"
    with writing(home, "outer"), writing(home, "inner"):
        assert '"outer"' in holder.read_text()  # the inner one neither waits for itself nor takes over
    assert not holder.exists()
    with home.writing("free again"):
        assert '"free again"' in holder.read_text()

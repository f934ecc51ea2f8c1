"""Which comparison models a version of the item model has."""

from __future__ import annotations

import pytest

from ml.examples.period import Prepared, TrainingPeriod
from ml.versions.item_version import ItemVersion
from settings import Fusion, Settings

USUAL = ["mean_pooling", "sequential", "contextual"]


@pytest.mark.parametrize(
    ("additional", "expected"),
    [
        ([], USUAL),
        (["contextual_cross_attention"], [*USUAL, "contextual_cross_attention"]),
        (["contextual_cross_attention", "max_pooling"], [*USUAL, "max_pooling", "contextual_cross_attention"]),
    ],
)
def test_the_settings_name_additional_models_for_the_reports(
    period: TrainingPeriod, prepared: Prepared, settings: Settings, additional: list[str], expected: list[str]
) -> None:
    chosen = settings.with_value("evaluation.additional_models", additional)
    planned = {each.name: each for each in ItemVersion(period, prepared, chosen).comparisons()}
    assert list(planned) == expected
    assert {each.part for each in planned.values()} == {f"evaluation-{model}" for model in expected}
    fusions = {name: each.task.settings.model.fusion for name, each in planned.items()}
    crossed = dict.fromkeys(set(expected) & {"contextual_cross_attention"}, Fusion.cross_attention)
    assert fusions == dict.fromkeys(expected, Fusion.concat) | crossed

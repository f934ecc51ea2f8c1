"""The search space: every dimension is a setting, trials share what is prepared, the present settings are inside."""

from __future__ import annotations

import optuna
import pytest

from ml.tuning.space import CONTEXT_SPACE, SPACE, Choice, Range, Whole, space_around, suggested, without
from settings import Settings


@pytest.mark.parametrize("with_context", [False, True])
def test_every_draw_is_a_valid_configuration_and_only_the_space_changes(with_context: bool) -> None:
    base = Settings()
    space = space_around(base, with_context)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        drawn = suggested(space, base, study.ask())
        names = {dimension.name for dimension in space}
        changed = {name for name in names if drawn.value(name) != base.value(name)}
        assert len(changed) >= len(space) / 2
        back = drawn
        for name in names:
            back = back.with_value(name, base.value(name))
        assert back == base
        # What the examples and the queries are prepared from is the same in all trials.
        for group in ("data", "sequences", "features", "evaluation"):
            assert getattr(drawn, group) == getattr(base, group)
        assert drawn.with_value("examples.label_weights", base.examples.label_weights).examples == base.examples
        assert drawn.training.seed == base.training.seed
        assert drawn.context.recipe == base.context.recipe


def test_the_present_settings_are_one_of_the_draws() -> None:
    base = Settings().with_value("training.learning_rate", 0.05).with_value("model.width", 40)
    base = base.with_value("training.epochs", 99)
    space = space_around(base, True)
    trial = optuna.trial.FixedTrial({dimension.name: base.value(dimension.name) for dimension in space})
    assert suggested(space, base, trial) == base  # type: ignore[arg-type]


def test_dimensions_widen_and_never_narrow() -> None:
    assert Range("a.b", 1.0, 2.0).including(3.0) == Range("a.b", 1.0, 3.0)
    assert Whole("a.b", 1, 2).including(1) == Whole("a.b", 1, 2)
    assert Choice("a.b", (64, 96)).including(8) == Choice("a.b", (8, 64, 96))


def test_what_is_fixed_is_not_searched() -> None:
    space = without(SPACE + CONTEXT_SPACE, {"model.width", "context.dropout"})
    assert len(space) == len(SPACE) - 1
    assert "model.width" not in {dimension.name for dimension in space}
    weight = "examples.label_weights.add_to_cart"
    assert weight in {dimension.name for dimension in space}
    assert weight not in {dimension.name for dimension in without(SPACE, {"examples.label_weights"})}

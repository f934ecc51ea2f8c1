"""``--set``: every kind of value, and refusals that say what would be right."""

from __future__ import annotations

import pytest

from pipelines.cli.errors import RunRefused
from pipelines.cli.overrides import overridden, parse_seeds, setting_names
from settings import AdditionalModel, Settings, UserEncoder


def test_values_of_every_kind_are_typed() -> None:
    found = overridden(
        Settings(),
        [
            "training.learning_rate=1e-3",
            "training.batch_size = 64",
            "inference.bfloat16=true",
            "model.encoder=max_pooling",
            "evaluation.ks=[10, 100]",
            'evaluation.additional_models=["max_pooling"]',
            'examples.label_weights={"checkout": 2}',
        ],
    )
    assert (found.training.learning_rate, found.training.batch_size) == (1e-3, 64)
    assert found.inference.bfloat16 is True
    assert found.model.encoder is UserEncoder.max_pooling
    assert found.evaluation.ks == [10, 100]
    assert found.evaluation.additional_models == [AdditionalModel.max_pooling]
    assert found.flat()["evaluation.additional_models"] == "['max_pooling']"
    assert found.examples.label_weights == {"checkout": 2.0}
    assert found.training.corpus_negatives == Settings().training.corpus_negatives  # what is not named stays


def test_the_last_of_equal_names_counts_and_both_fields_of_a_group_stay() -> None:
    found = overridden(Settings(), ["model.width=16", "model.heads=2", "model.width=32"])
    assert (found.model.width, found.model.heads) == (32, 2)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("training.learning_rate", "write group.field=value"),
        ("training.learning_rate=fast", "--set training.learning_rate=fast: Input should be a valid number"),
        ("training.batch_size=1", "greater than or equal to 2. The setting: Pairs"),
        ("model.encoder=lstm", "'transformer', 'mean_pooling'"),
        ("model.widht=3", "Did you mean model.width?"),
        ("modle.width=3", "Did you mean model.width?"),
        ("learning_rate=3", "Did you mean training.learning_rate?"),
        ("zzz=3", "A setting is group.field, of the groups data, engine"),
        ("home=/tmp", "there is no such setting"),
        ("evaluation.ks=[10,", "not JSON"),
        ("evaluation.ks=ten", "valid list"),
        ('evaluation.additional_models=["lstm"]', "'max_pooling' or 'contextual_cross_attention'"),
    ],
)
def test_what_is_wrong_is_said(assignment: str, says: str) -> None:
    with pytest.raises(RunRefused) as refused:
        overridden(Settings(), [assignment])
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_setting_can_be_named() -> None:
    assert set(setting_names(Settings())) == set(Settings().flat())


def test_seeds() -> None:
    assert parse_seeds("3") == [3]
    assert parse_seeds("0,2, 2,1") == [0, 2, 1]
    for text in ("", "a", "1;2", "-1"):
        with pytest.raises(RunRefused, match="--seed"):
            parse_seeds(text)

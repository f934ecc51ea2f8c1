"""When a trial is given up: at quarters of its own epochs, against the median of the others there."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from lightning.pytorch.loggers import MLFlowLogger

from ml.tuning.trials import STAGES, Objective, TrialLogger, pruner_of


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize", pruner=pruner_of(Objective.recall_at_100))
    for best in (0.3, 0.35, 0.4, 0.45, 0.5):
        intermediate = {stage: best * stage / STAGES for stage in range(1, STAGES + 1)}
        study.add_trial(optuna.create_trial(value=best, intermediate_values=intermediate))
    return study


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def ignore(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(MLFlowLogger, "__init__", ignore)
    monkeypatch.setattr(MLFlowLogger, "log_metrics", ignore)


def validated_epochs(study: optuna.Study, epochs: int, recall: float) -> int:
    """Epochs until a trial with the same recall in each is given up, or all of them."""
    logger = TrialLogger(study.ask(), epochs, "validation_recall_at_100", tracking_uri="", run_id="")
    for epoch in range(1, epochs + 1):
        try:
            logger.log_metrics({"validation_recall_at_100": recall})
        except optuna.TrialPruned:
            return epoch
        logger.log_metrics({"train_loss": 1.0})  # says nothing
    return epochs


@pytest.mark.parametrize(("epochs", "given_up_after"), [(2, 1), (4, 2), (8, 4), (12, 6)])
def test_a_hopeless_trial_ends_half_way_however_long_it_is(
    study: optuna.Study, epochs: int, given_up_after: int
) -> None:
    assert validated_epochs(study, epochs, 0.01) == given_up_after
    assert validated_epochs(study, epochs, 0.6) == epochs

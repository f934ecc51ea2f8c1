"""The experiment of the marketplace report: each model's candidates through the world's market, an arm each."""

from __future__ import annotations

from datetime import timedelta
from math import ceil

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison
from assets.steps.contextual_answers import contextual_answers
from warehouse.world import Arm, run_arms


def arm_outcomes(workspace: Workspace, compared: VersionComparison) -> pl.DataFrame | None:
    """Return the outcomes of every arm, as ``run_arms``; None where the log is not the synthetic world."""
    from ml.evaluation.answers_by_surface import DEPTH
    from ml.evaluation.model_names import ARMS, WITHOUT_A_MODEL

    answers, settings = contextual_answers(workspace, compared), workspace.settings.evaluation
    if answers is None or not answers.is_of_world:
        return None
    nothing = pl.DataFrame(schema={"request_id": pl.String, "item_id": pl.String, "rank": pl.Int64})
    arms = [Arm(model.value, answers.proposals(model, DEPTH)) for model in ARMS if model in answers.lists]
    until = compared.version.trained_day
    since = until - timedelta(days=ceil(compared.period.rule.window_days) - 1)
    return run_arms(
        workspace.landing.root,
        [Arm(WITHOUT_A_MODEL, nothing), *arms],
        since=since,
        until=until,
        quota=settings.arm_candidates,
    )

"""The experiment of the marketplace report: each arm's candidates through the world's market."""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.advertiser_arms import lists_of_advertisers
from assets.steps.comparison import VersionComparison
from assets.steps.contextual_answers import contextual_answers
from assets.steps.trimmed_arm import trimmed_lists
from warehouse.world import Arm, run_arms

if TYPE_CHECKING:
    from ml.retrieval.lists import RankedLists


def arm_outcomes(workspace: Workspace, compared: VersionComparison) -> pl.DataFrame | None:
    """Return the outcomes of every arm, as ``run_arms``; None where the log is not the synthetic world."""
    from ml.evaluation.answers_by_surface import DEPTH
    from ml.evaluation.model_names import ARMS, WITHOUT_A_MODEL, ListArm, ModelName

    answers, settings = contextual_answers(workspace, compared), workspace.settings.evaluation
    if answers is None or not answers.is_of_world:
        return None
    nothing = pl.DataFrame(schema={"request_id": pl.String, "item_id": pl.String, "rank": pl.Int64})
    of_advertisers = lists_of_advertisers(workspace, compared, answers)

    trimmed = trimmed_lists(workspace, compared, answers)

    def lists_of(arm: ModelName | ListArm) -> RankedLists | None:
        if arm is ListArm.trimmed:
            return trimmed
        return of_advertisers.get(arm) if isinstance(arm, ListArm) else answers.lists.get(arm)

    arms = [Arm(arm.value, answers.as_proposals(lists, DEPTH)) for arm in ARMS if (lists := lists_of(arm)) is not None]
    until = compared.version.trained_day
    since = until - timedelta(days=ceil(compared.period.rule.window_days) - 1)
    return run_arms(
        workspace.landing.root,
        [Arm(WITHOUT_A_MODEL, nothing), *arms],
        since=since,
        until=until,
        quota=settings.arm_candidates,
    )

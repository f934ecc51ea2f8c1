"""Estimates of the marketplace report: what each model's lists would have brought, from the log's propensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison
from assets.steps.contextual_answers import contextual_answers
from warehouse.contracts import STAGES

if TYPE_CHECKING:
    from ml.evaluation.report_rows import ReportRow


def estimated_outcomes(workspace: Workspace, compared: VersionComparison, impressions: pl.DataFrame) -> list[ReportRow]:
    """Return the estimated outcomes of each model's lists; none where the log has no propensities.

    A candidate is in the log if it was proposed and logged, so the probability is the product of the two.

    Args:
        impressions: of the newest window, with propensity and inclusion_probability.
    """
    from ml.evaluation.funnel_outcomes import Stages
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.off_policy_outcomes import off_policy_rows

    answers = contextual_answers(workspace, compared)
    if answers is None or not impressions["propensity"].count():
        return []
    logged = impressions.filter(pl.col("request_id").is_in(answers.evaluation.requests["request_id"].implode()))
    logged = logged.with_columns(pl.col("propensity") * pl.col("inclusion_probability").fill_null(1.0))
    models = (
        ModelName.rule,
        ModelName.parts,
        ModelName.sequential,
        ModelName.contextual,
        ModelName.contextual_cross_attention,
    )
    first, seed = workspace.settings.evaluation.arm_candidates, workspace.settings.training.seed
    rows = [
        row
        for model in models
        if model in answers.lists
        for row in off_policy_rows(
            logged, answers.proposals(model, first), policy=model.value, stages=Stages(STAGES), seed=seed
        )
    ]
    return list(dict.fromkeys(rows))  # the log's own outcomes come with every model

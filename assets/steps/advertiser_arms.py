"""The arms of the market with the items of predicted advertisers: alone, and beside the contextual model's items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison
from assets.steps.contextual_answers import ContextualAnswers
from assets.steps.versions import ModelVersion, advertiser_versions

if TYPE_CHECKING:
    from ml.evaluation.model_names import ListArm
    from ml.retrieval.lists import RankedLists


def lists_of_advertisers(
    workspace: Workspace, compared: VersionComparison, answers: ContextualAnswers
) -> dict[ListArm, RankedLists]:
    """Return the lists of both arms; none where no advertiser model had been trained by the item model's day."""
    from ml.evaluation.advertiser_lists import advertiser_lists
    from ml.evaluation.answers_by_surface import DEPTH
    from ml.evaluation.model_names import ListArm, ModelName
    from ml.models.version_directories import ADVERTISER_EVALUATION

    version = _advertiser_version(workspace, compared)
    if version is None:
        return {}
    settings = workspace.settings
    alone = advertiser_lists(
        compared.comparison.artifacts[ModelName.contextual],
        workspace.advertiser_model(version.directory / ADVERTISER_EVALUATION),
        answers.evaluation.asked,
        period=compared.period,
        advertisers=settings.advertisers.list_depth,
        quota=settings.serving.advertiser_quota,
        depth=DEPTH,
    )
    beside = blended(answers.lists[ModelName.contextual], alone, settings.serving.advertiser_share)
    return {ListArm.advertiser_lists: alone, ListArm.with_contextual: beside}


def blended(first: RankedLists, second: RankedLists, share: float) -> RankedLists:
    """Return both lists of each request as one, as deep as the first, by the rule that blends answers of the service.

    Args:
        share: of the second list.
    """
    from ml.retrieval.lists import RankedLists
    from serving.blend import blend
    from serving.generators import Scored

    def scored(lists: RankedLists) -> Iterator[list[Scored]]:
        return ([Scored(row, 0.0, "") for row in rows if row >= 0] for rows in lists.items.tolist())

    both = zip(scored(first), scored(second), strict=True)
    rows = [[each.row for each in blend(pair, [1 - share, share], first.depth)] for pair in both]
    return RankedLists.from_rows(rows, first.depth)


def _advertiser_version(workspace: Workspace, compared: VersionComparison) -> ModelVersion | None:
    """Return the newest advertiser model that was trained by the item model's day.

    Its evaluation model has then learnt nothing of the measured window.
    """
    known = reversed(advertiser_versions(workspace.tables, workspace.home).all())  # newest first, so it wins a tie
    usable = (version for version in known if version.trained_day <= compared.version.trained_day)
    return max(usable, key=lambda version: version.trained_day, default=None)

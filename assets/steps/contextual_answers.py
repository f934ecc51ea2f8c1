"""The answers of every model to the requests with a context, made once a run: two reports read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison, chosen_parts, hidden_items_of, read_impressions
from warehouse.world import contextual_ranking, is_world

if TYPE_CHECKING:
    from ml.evaluation.contextual_requests import ContextEvaluation
    from ml.evaluation.model_names import ModelName
    from ml.retrieval.lists import RankedLists


@dataclass(frozen=True)
class ContextualAnswers:
    """Requests, and the lists of every model for them; the oracle's where the log is the synthetic world.

    Attributes:
        item_ids: of the candidates, whose rows the lists hold.
    """

    evaluation: ContextEvaluation
    lists: Mapping[ModelName, RankedLists]
    item_ids: pl.Series

    def proposals(self, model: ModelName, first: int) -> pl.DataFrame:
        """Return the first items of a model's list for each request: request_id, item_id, rank (from 1)."""
        return self.as_proposals(self.lists[model], first)

    def as_proposals(self, lists: RankedLists, first: int) -> pl.DataFrame:
        """Return the first items of any lists for the requests, as ``proposals``."""
        items = lists.items[:, :first]
        request, place = (items >= 0).nonzero()
        return pl.DataFrame(
            {
                "request_id": self.evaluation.requests["request_id"].gather(request),
                "item_id": self.item_ids.gather(items[request, place]),
                "rank": place + 1,
            }
        )

    @property
    def is_of_world(self) -> bool:
        from ml.evaluation.model_names import ModelName

        return ModelName.oracle in self.lists


def contextual_answers(workspace: Workspace, compared: VersionComparison) -> ContextualAnswers | None:
    """Return the answers to the requests of the newest window; None without a request."""
    return workspace.once("contextual answers", compared.version.name, lambda: _answers(workspace, compared))


def _answers(workspace: Workspace, compared: VersionComparison) -> ContextualAnswers | None:
    from ml.evaluation.answers_by_surface import context_lists
    from ml.evaluation.contextual_requests import context_evaluation
    from ml.evaluation.model_names import ModelName

    settings = workspace.settings
    evaluation = context_evaluation(
        compared.comparison.asked,
        compared.period,
        read_impressions(workspace.tables, compared.version.trained_day),
        features=compared.comparison.settings.features,
        maximum=settings.evaluation.maximum_users,
        seed=settings.training.seed,
        hidden_items=hidden_items_of(workspace),
    )
    if evaluation is None:
        return None
    lists = context_lists(compared.comparison, chosen_parts(workspace, compared), evaluation)
    oracle = _oracle_lists(workspace, compared, evaluation)
    every = lists if oracle is None else {**lists, ModelName.oracle: oracle}
    return ContextualAnswers(evaluation, every, compared.comparison.item_ids)


def _oracle_lists(
    workspace: Workspace, compared: VersionComparison, evaluation: ContextEvaluation
) -> RankedLists | None:
    """Return the lists of the world's contextual oracle; None for another log, and for baskets."""
    from ml.evaluation.answers_by_surface import DEPTH
    from ml.evaluation.contextual_requests import BASKETS
    from ml.features.event_log import row_numbers
    from ml.retrieval.lists import RankedLists

    requests, items = evaluation.requests, compared.comparison.item_ids
    if not is_world(workspace.landing.root) or (requests["surface"] == BASKETS).any():
        return None
    ranking = contextual_ranking(
        workspace.landing.root,
        compared.version.trained_day,
        requests["request_id"].to_list(),
        item_ids=items.to_list(),
        times=workspace.settings.evaluation.oracle_funnels,
        depth=DEPTH,
    )
    return RankedLists.from_places(
        row_numbers(requests["request_id"], ranking["request_id"]),
        ranking["rank"].to_numpy() - 1,
        row_numbers(items, ranking["item_id"]),
        queries=len(requests),
        depth=DEPTH,
    )

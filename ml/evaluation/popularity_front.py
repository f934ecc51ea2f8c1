"""The front of recall against diversity that ``index.popularity_weight`` draws, which needs no training."""

from __future__ import annotations

from collections.abc import Sequence

from ml.evaluation.model_lists import lists_of_states, states_of
from ml.evaluation.queries import EvaluationSet
from ml.models.item_model import TwoTower
from ml.retrieval.lists import RankedLists
from settings import Settings

POPULARITY_WEIGHTS = (0.0, 0.05, 0.1, 0.2)


def lists_by_weight(
    network: TwoTower, asked: EvaluationSet, settings: Settings, *, weights: Sequence[float], depth: int
) -> dict[float, RankedLists]:
    """Return a network's lists under each popularity weight, in rows of the candidates."""
    states = states_of(network, asked, settings)
    return {
        weight: lists_of_states(
            network, asked, states, settings=settings.with_value("index.popularity_weight", weight), depth=depth
        )
        for weight in weights
    }

"""The answers of every model to requests with a context, by surface: recall, and relevance to the subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.contextual_requests import ContextEvaluation
from ml.evaluation.item_report import Comparison
from ml.evaluation.metrics import Metrics, evaluate, usable_ks
from ml.evaluation.model_lists import all_lists, network_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet
from ml.evaluation.untrained_parts import UntrainedParts
from ml.features.content import category_nodes
from ml.retrieval.lists import RankedLists

CONTEXT_KS = (10, 100)
DEPTH = 100

Relevance = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
"""Subjects and candidates, as catalogue rows [pairs] each, to the relevance of each pair, 0 to 1 [pairs]."""


def context_lists(
    comparison: Comparison, parts: UntrainedParts, evaluation: ContextEvaluation
) -> dict[ModelName, RankedLists]:
    """Return the lists of every baseline and model, and of the models that differ by the way of asking."""
    asked = evaluation.asked
    lists = all_lists(comparison.artifacts, parts, asked, depth=DEPTH)
    for model in ModelName:
        if model.needs_context and model.base in comparison.artifacts:
            base = comparison.artifacts[model.base]
            lists[model] = network_lists(model, base.network, asked, settings=base.settings, depth=DEPTH)
    return {model: lists[model] for model in ModelName if model in lists}  # in the order of the reports


@dataclass(frozen=True)
class SurfaceRequests:
    """The requests of one surface, with the lists of every model for them."""

    surface: str
    asked: EvaluationSet
    users: NDArray[np.int64]  # [requests] number of the user who asks
    lists: Mapping[ModelName, RankedLists]

    def measure(self, advertisers: NDArray[np.int64], categories: NDArray[np.int64]) -> dict[ModelName, Metrics]:
        """Return all figures of every model; ``advertisers``, ``categories`` [candidates]: a code, -1 = unknown."""
        size = len(self.asked.queries.candidates)
        return {
            model: evaluate(
                lists,
                self.asked.queries.positives,
                size,
                advertisers=advertisers,
                categories=categories,
                ks=usable_ks(CONTEXT_KS, size),
            )
            for model, lists in self.lists.items()
        }


def by_surface(evaluation: ContextEvaluation, lists: Mapping[ModelName, RankedLists]) -> list[SurfaceRequests]:
    """Return the requests of each surface, in the order of the surfaces' names."""
    found, users = [], evaluation.requests["user_id"].rank("dense").to_numpy().astype(np.int64)
    for surface in evaluation.requests["surface"].unique().sort():
        rows = (evaluation.requests["surface"] == surface).arg_true().to_numpy().astype(np.int64)
        asked = evaluation.asked.take(rows)
        of_surface = {model: each.take(rows) for model, each in lists.items()}
        found.append(SurfaceRequests(surface, asked, users[rows], of_surface))
    return found


def category_overlap(items: pl.DataFrame) -> Relevance:
    """Return the share of the subject's category path that the candidate's path has too.

    The figure stands in for judgements of relevance. Models read the category, so the figure flatters a model that
    repeats the subject's category.

    Args:
        items: the catalogue. A pair whose subject has no category has no relevance (NaN).

    >>> items = pl.DataFrame({"item_id": ["a", "b", "c"], "category": ["Home > Lamps", "Home > Rugs", None]})
    >>> category_overlap(items)(np.array([0, 0, 2]), np.array([0, 1, 0])).tolist()
    [1.0, 0.5, nan]
    """
    nodes = category_nodes(items.sort("item_id")["category"])
    levels = int(nodes.list.len().max() or 0)  # type: ignore[arg-type]
    # A prefix of a path stands for the whole way to it, so equal codes at a level mean equal paths down to the level.
    codes = np.column_stack(
        [nodes.list.get(level, null_on_oob=True).rank("dense").fill_null(0).to_numpy() for level in range(levels)]
        or [np.zeros(len(nodes))]
    )

    def relevance(subject: NDArray[np.int64], candidate: NDArray[np.int64]) -> NDArray[np.float64]:
        path = codes[subject]
        known = path > 0
        shared = (path == codes[candidate]) & known
        with np.errstate(invalid="ignore"):
            share: NDArray[np.float64] = shared.sum(axis=1) / known.sum(axis=1)
        return share

    return relevance


def median_relevance(lists: RankedLists, asked: EvaluationSet, relevance: Relevance, first: int = 10) -> float:
    """Return the median over requests of the mean relevance of the first candidates to the subject.

    A request without a candidate or a relevance is left out; NaN where all are.
    """
    queries = asked.queries
    shown = lists.items[:, :first]
    request, place = np.nonzero((shown >= 0) & (queries.context.subject >= 0)[:, None])
    found = np.full(shown.shape, np.nan)
    found[request, place] = relevance(queries.context.subject[request], queries.candidates[shown[request, place]])
    known = ~np.isnan(found)
    counted = known.any(axis=1)
    means = np.where(known, found, 0.0).sum(axis=1)[counted] / known.sum(axis=1)[counted]
    return float(np.median(means)) if len(means) else float("nan")

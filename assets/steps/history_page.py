"""The page that a person looks at: histories and what they retrieve, with and without the context."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml.evaluation.contextual_requests import ContextEvaluation
    from ml.evaluation.item_report import Comparison
    from ml.evaluation.model_names import ModelName
    from ml.figures.history_page import ItemLine
    from ml.retrieval.lists import RankedLists

USERS = 6
ITEMS = 10


def page(
    comparison: "Comparison",
    evaluation: "ContextEvaluation",
    lists: "Mapping[ModelName, RankedLists]",
    items: pl.DataFrame,
) -> str:
    """Return a self-contained page on the first requests of users with a history and a subject."""
    from ml.evaluation.model_names import ModelName
    from ml.figures.history_page import UserExample, qualitative_page

    queries, log = evaluation.asked.queries, evaluation.asked.dataset.log
    lines = _Lines(items.sort("item_id"))
    start = log.offsets[np.maximum(queries.user, 0)]
    length = np.where(queries.user >= 0, queries.history_end - start, 0)
    shown = np.flatnonzero((length >= 3) & (queries.context.subject >= 0))[:USERS]
    examples = []
    for query in shown:
        history = log.item[start[query] : queries.history_end[query]][::-1][:ITEMS]
        offsets = queries.positives.offsets
        wanted = set(queries.positives.items[offsets[query] : offsets[query + 1]].tolist())
        examples.append(
            UserExample(
                user_id=evaluation.requests["user_id"][int(query)],
                history=[lines(int(item), False) for item in history if item >= 0],
                without_context=_retrieved(
                    lists[ModelName.contextual_without_context], int(query), comparison, wanted=wanted, lines=lines
                ),
                with_context=_retrieved(
                    lists[ModelName.contextual], int(query), comparison, wanted=wanted, lines=lines
                ),
                subject=lines(int(queries.context.subject[query]), False),
                positives=[lines(int(queries.candidates[item]), True) for item in wanted if item >= 0],
            )
        )
    return qualitative_page(examples)


def _retrieved(
    ranked: "RankedLists", query: int, comparison: "Comparison", *, wanted: set[int], lines: "_Lines"
) -> "list[ItemLine]":
    candidates = comparison.asked.queries.candidates
    return [lines(int(candidates[item]), int(item) in wanted) for item in ranked.items[query][:ITEMS] if item >= 0]


class _Lines:
    """Catalogue row -> the text that people read."""

    def __init__(self, items: pl.DataFrame) -> None:
        self.rows = items.select("item_id", "title", "category", "advertiser_id").rows()

    def __call__(self, row: int, positive: bool) -> "ItemLine":
        from ml.figures.history_page import ItemLine

        item_id, title, category, advertiser = self.rows[row]
        return ItemLine(title or item_id, category or "", advertiser or "", positive=positive)

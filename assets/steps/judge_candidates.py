"""The judge of candidates in a home: the truth of the synthetic world, raters' labels, or the day's relevance model."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.pair_catalogue import pair_catalogue
from assets.steps.relevance_versions import relevance_model
from warehouse.as_of import arrived_by
from warehouse.contracts import LandingTable
from warehouse.world import TrueRelevance, is_world

if TYPE_CHECKING:
    from ml.relevance.judgements import Judging


def judging_of(workspace: Workspace, day: date) -> Judging:
    """Return what judges pairs of a subject item or a query with an item, as of the end of ``day``.

    Pairs that come with trim_score and relevance keep these; others are scored where neither the truth nor a rater
    knows them.
    """
    from ml.relevance.judgements import judged

    relevant_label = workspace.settings.relevance.relevant_label
    labels = arrived_by(workspace.tables, LandingTable.relevance_labels, day).collect()
    truth = TrueRelevance.of(workspace.landing.root, day) if is_world(workspace.landing.root) else None

    def of(pairs: pl.DataFrame) -> pl.DataFrame:
        known = pairs
        if truth is not None:
            relevance = truth.of_candidates(pairs)
            known = known.with_columns(
                true_relevance=pl.Series(relevance).fill_nan(None),
                true_relevant=pl.Series(truth.called_relevant(relevance, label=relevant_label)).fill_nan(None),
            )
        if "trim_score" not in known.columns:
            known = _scored(workspace, day, known, needed=truth is None)
        columns = [name for name in ("true_relevance", "true_relevant") if truth is not None]
        return judged(known, labels, relevant_label=relevant_label).drop(columns)

    return of


def _scored(workspace: Workspace, day: date, pairs: pl.DataFrame, *, needed: bool) -> pl.DataFrame:
    """Return pairs with the scores of the day's relevance model; null without a model, and where none is needed."""
    model = relevance_model(workspace, day) if needed else None
    if model is None or pairs.is_empty():
        return pairs.with_columns(trim_score=pl.lit(None, pl.Float64), relevance=pl.lit(None, pl.Float64))
    types = workspace.items_as_of(day).select("item_id", "content_type")
    typed = pairs.join(types, on="item_id", how="left", maintain_order="left")
    described, features = pair_catalogue(workspace, day, model.text).features_of(typed)
    known = pl.Series(described)
    scores = model.scores(features, typed.filter(known))
    rows = typed.with_row_index("pair").filter(known).select("pair", trim_score=scores.trim, relevance=scores.relevance)
    return (
        typed.with_row_index("pair")
        .join(rows, on="pair", how="left", maintain_order="left")
        .drop("pair", "content_type")
    )

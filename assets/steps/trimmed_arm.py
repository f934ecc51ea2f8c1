"""The arm of the market with the relevance trim: the contextual model's items without those that the trim drops.

The trim's model has learnt the labels that were given before the measured window, under the content of that time.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.comparison import VersionComparison
from assets.steps.contextual_answers import ContextualAnswers
from ml.relevance.nothing_to_tell import NothingToTell
from warehouse.as_of import arrived_by
from warehouse.contracts import CONTENT_TYPES, LandingTable

if TYPE_CHECKING:
    from ml.relevance.pair_features import PairCatalogue
    from ml.relevance.relevance_model import RelevanceModel
    from ml.retrieval.lists import RankedLists

logger = logging.getLogger(__name__)


def trimmed_lists(workspace: Workspace, compared: VersionComparison, answers: ContextualAnswers) -> RankedLists | None:
    """Return the contextual model's lists without the items that the trim drops.

    None where fewer labels than a relevance model needs were given before the window, or they tell no pairs apart.
    """
    from ml.evaluation.model_names import ModelName
    from ml.retrieval.lists import RankedLists

    cutoff = datetime.fromtimestamp(compared.comparison.cutoff, UTC)
    labels = (
        arrived_by(workspace.tables, LandingTable.relevance_labels, compared.version.trained_day)
        .filter(pl.col("labelled_at") < cutoff)
        .collect()
    )
    if labels.height < workspace.settings.relevance.minimum_labels:
        return None
    catalogue = _catalogue(workspace, compared)
    try:
        model = _model(workspace, compared, catalogue, labels)
    except NothingToTell as error:
        logger.warning("no arm with the relevance trim: %s", error)
        return None
    lists = answers.lists[ModelName.contextual]
    request, place = (lists.items >= 0).nonzero()
    asked = answers.evaluation.requests.select("surface", "subject_item_id", "query")[request]
    pairs = asked.with_columns(item_id=answers.item_ids.gather(lists.items[request, place])).join(
        compared.period.items.select("item_id", "content_type"), on="item_id", how="left", maintain_order="left"
    )
    described, features = catalogue.features_of(pairs)
    dropped = np.zeros(len(pairs), bool)
    known = pairs.filter(pl.Series(described))
    dropped[described] = model.scores(features, known).trim < model.threshold_of(known["content_type"])
    kept = np.where(dropped, -1, lists.items[request, place])
    rows = np.full(lists.items.shape, -1)
    rows[request, place] = kept
    return RankedLists.from_rows([[row for row in each if row >= 0] for each in rows.tolist()], lists.depth)


def _catalogue(workspace: Workspace, compared: VersionComparison) -> PairCatalogue:
    """Return the catalogue under the content that was learnt before the window."""
    from ml.features.search_queries import InterestMatcher
    from ml.features.text import TextBasis
    from ml.relevance.category_means import ContentWidths
    from ml.relevance.pair_features import PairCatalogue

    dataset, settings = compared.comparison.asked.dataset, workspace.settings
    items = compared.period.items.select(
        "item_id",
        "title",
        "advertiser_id",
        "content_type",
        category_path="category",
        amount="price",
        stated_interests="interests",
    )
    frame = dataset.features.item_ids.alias("item_id").to_frame().join(items, on="item_id", maintain_order="left")
    return PairCatalogue.of(
        frame,
        dataset.features,
        matcher=InterestMatcher.of(frame),
        text=TextBasis.of(frame["title"], settings.relevance.text_dimensions, settings.training.seed),
        widths=ContentWidths(dataset.basis.graph_width, dataset.basis.given_width),
        content_types=CONTENT_TYPES,
        buckets=compared.comparison.settings.features.category_buckets,
    )


def _model(
    workspace: Workspace, compared: VersionComparison, catalogue: PairCatalogue, labels: pl.DataFrame
) -> RelevanceModel:
    from ml.relevance.fit_relevance import fit_relevance
    from ml.relevance.judged_pairs import judged_pairs

    types = compared.period.items.select("item_id", "content_type")
    return fit_relevance(
        judged_pairs(labels.with_columns(true_relevance=pl.lit(None, pl.Float64)), catalogue, types),
        workspace.settings.relevance,
        version="trimmed arm",
        trained_until=compared.comparison.cutoff,
        text=catalogue.text,
    ).model

"""The catalogue of a day as pair features read it, under the item model that serves the day."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from assets.common.workspace import Workspace
from assets.steps.item_features import features_frame
from assets.steps.publish import catalogue_frame
from assets.steps.versions import serving
from warehouse.contracts import CONTENT_TYPES

if TYPE_CHECKING:
    from ml.features.text import TextBasis
    from ml.relevance.pair_features import PairCatalogue


def pair_catalogue(workspace: Workspace, day: date, text: TextBasis | None = None) -> PairCatalogue:
    """Return the catalogue as of the end of ``day``, under the item model that serves the day.

    Args:
        text: the space of titles; None: the space of the day's titles.

    Raises:
        NothingToLearn: the training by ``day`` had no item to learn.
        dagster.Failure: no promoted model had been trained by ``day``.
    """
    from ml.features.items import ItemFeatures
    from ml.features.search_queries import InterestMatcher
    from ml.features.text import TextBasis
    from ml.relevance.category_means import ContentWidths
    from ml.relevance.pair_features import PairCatalogue

    version = serving(workspace.tables, workspace.home, day, workspace.tracking.champion())
    artifact = workspace.item_model(version.deployed)
    frame = catalogue_frame(features_frame(workspace, version, day), workspace.items_as_of(day))
    features, _ = ItemFeatures.from_frame(frame)
    relevance = workspace.settings.relevance
    arrived = workspace.arrivals_key(day, "events", "items")
    return PairCatalogue.of(
        frame,
        features,
        matcher=workspace.once("interest matcher", arrived, lambda: InterestMatcher.of(frame)),
        text=text or TextBasis.of(frame["title"], relevance.text_dimensions, workspace.settings.training.seed),
        widths=ContentWidths(artifact.basis.graph_width, artifact.basis.given_width),
        content_types=CONTENT_TYPES,
        buckets=artifact.settings.features.category_buckets,
    )

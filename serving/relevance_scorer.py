"""The relevance of candidates to the place of a request: the trim between search and blend, and its holdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.items import ItemFeatures
from ml.features.search_queries import InterestMatcher
from ml.models.artifact import ModelArtifact
from ml.relevance.calibration import cells_of
from ml.relevance.category_means import ContentWidths
from ml.relevance.pair_features import PairCatalogue, Traits, pair_features
from ml.relevance.relevance_model import RelevanceModel
from warehouse.contracts import ARMS, CONTENT_TYPES
from warehouse.surfaces import Carries, Surface

REMEMBERED_QUERIES = 1000
HOLDOUT_KEY = b"relevance holdout"


class Arm(StrEnum):
    """The two ways in which a request can be answered."""

    production, holdout = ARMS


def arm_of(user_key: bytes, holdout_share: float) -> Arm:
    """Return the arm of a user, the same for as long as the share is: a hash of the key, which is keyed itself.

    >>> [arm_of(b"somebody", share).value for share in (0.0, 1.0)]
    ['production', 'holdout']
    """
    digest = blake2b(user_key, digest_size=8, key=HOLDOUT_KEY).digest()
    return Arm.holdout if int.from_bytes(digest, "big") < holdout_share * 2**64 else Arm.production


@dataclass(frozen=True)
class Judged:
    """Candidates with their scores, one row each.

    Attributes:
        rows: [candidates] of the index. features: [candidates, features].
        trim_score: [candidates] probability of relevance. relevance: [candidates] expected relevance, 0 to 1.
        passes: [candidates] whether the trim lets the candidate through.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.float32]
    trim_score: NDArray[np.float64]
    relevance: NDArray[np.float64]
    passes: NDArray[np.bool_]

    def irrelevant(self) -> set[int]:
        """Return the index rows that the trim drops."""
        return set(self.rows[~self.passes].tolist())


@dataclass(frozen=True)
class RelevanceScorer:
    """The relevance model of a publication over the publication's catalogue.

    Attributes:
        cells: surface -> the cells of calibration. cell: [catalogue rows] place of the item's cell in them.
        thresholds: [catalogue rows] of the trim.
        listed: [index rows] catalogue row.
        about: what the words of a query say; the newest queries are remembered.
    """

    model: RelevanceModel
    catalogue: PairCatalogue
    cells: dict[Surface, list[str]]
    cell: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    listed: NDArray[np.int64]
    about: Callable[[str], Traits | None]

    @classmethod
    def load(
        cls,
        directory: Path,
        frame: pl.DataFrame,
        *,
        features: ItemFeatures,
        listed: NDArray[np.int64],
        matcher: InterestMatcher | None,
        artifact: ModelArtifact,
    ) -> RelevanceScorer:
        """Read a relevance model for a catalogue.

        Args:
            frame: the catalogue, in the rows of ``features``. listed: [index rows] catalogue row.

        Raises:
            Unreadable: a file of the model is missing or damaged.
        """
        model = RelevanceModel.load(directory)
        catalogue = PairCatalogue.of(
            frame,
            features,
            matcher=matcher,
            text=model.text,
            widths=ContentWidths(artifact.basis.graph_width, artifact.basis.given_width),
            content_types=CONTENT_TYPES,
            buckets=artifact.settings.features.category_buckets,
        )
        types = frame.select("content_type").unique().sort("content_type")
        cells = {surface: cells_of(types.with_columns(surface=pl.lit(surface.value))).to_list() for surface in Surface}
        cell = frame["content_type"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        cell -= 0 if types["content_type"].has_nulls() else 1  # null, where there is one, sorts first

        @lru_cache(REMEMBERED_QUERIES)
        def about(query: str) -> Traits | None:
            words = catalogue.queries(pl.Series([query]))
            return words if words.text.any() or words.confidence.any() else None

        return cls(model, catalogue, cells, cell, model.threshold_of(frame["content_type"]), listed, about)

    def place(self, surface: Surface, subject: int | None, query: str | None) -> Traits | None:
        """Return what a request is about: its subject item (catalogue row) or its query.

        None where it has neither, and where the catalogue knows no word of the query: nothing can then be irrelevant.
        """
        if surface.carries is Carries.subject and subject is not None:
            return self.catalogue.items.take(np.array([subject]))
        if surface.carries is Carries.query and query is not None:
            return self.about(query)
        return None

    def judge(self, surface: Surface, place: Traits, rows: Sequence[int]) -> Judged:
        """Return the scores of candidates (index rows) at a place."""
        index_rows = np.array(rows, np.int64)
        items = self.listed[index_rows]
        features = pair_features(place, self.catalogue.items.take(items))
        cells, cell = self.cells[surface], self.cell[items]
        trim = self.model.trim.of_codes(features, cells, cell)
        return Judged(
            rows=index_rows,
            features=features,
            trim_score=trim,
            relevance=self.model.auction.of_codes(features, cells, cell),
            passes=trim >= self.thresholds[items],
        )

    def passes(
        self, places: Sequence[tuple[Surface, Traits]], rows: Sequence[Sequence[int]]
    ) -> list[NDArray[np.bool_]]:
        """Return whether the trim lets each candidate through, as ``judge``, for many places in one call of the model.

        Args:
            places: surface, and what the request is about. rows: [places][candidates] index rows.
        """
        counts = [len(own) for own in rows]
        of_place = np.repeat(np.arange(len(places)), counts)
        items = self.listed[np.concatenate([np.array(own, np.int64) for own in rows])]
        features = pair_features(
            Traits.together([about for _, about in places]).take(of_place), self.catalogue.items.take(items)
        )
        surfaces = list(self.cells)
        first = np.cumsum([0, *(len(cells) for cells in self.cells.values())])  # of the cells of each surface
        names = [cell for cells in self.cells.values() for cell in cells]
        codes = first[[surfaces.index(surface) for surface, _ in places]][of_place] + self.cell[items]
        passes = self.model.trim.of_codes(features, names, codes) >= self.thresholds[items]
        return np.split(passes, np.cumsum(counts)[:-1])

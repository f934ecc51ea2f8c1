"""The true relevance of an item beside a subject or to a search query, which no model reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.dynamics import World
from warehouse.world.generate import read_settings
from warehouse.world.market.truth import relevance_beside, relevance_to_query
from warehouse.world.names import STYLE_DIMENSIONS, STYLE_WORDS
from warehouse.world.oracle import item_indices
from warehouse.world.simulation import build_world


@dataclass(frozen=True)
class TrueRelevance:
    """The relevance that the world's funnel and raters go by."""

    world: World

    @classmethod
    def of(cls, landing_root: Path, as_of: date) -> TrueRelevance:
        """Return the relevance of a world.

        Args:
            landing_root: a landing zone that ``write_world`` wrote.
            as_of: the last day on which an item that will be asked for can have appeared.

        Raises:
            FileNotFoundError: the landing zone holds no synthetic world.
        """
        settings = read_settings(landing_root)
        return cls(build_world(settings, settings.day_number(as_of)))

    def of_pairs(self, subject_ids: pl.Series, item_ids: pl.Series) -> NDArray[np.float64]:
        """Return the relevance of each item beside its subject, 0 to 1 [pairs].

        Raises:
            ValueError: an unknown item.
        """
        return relevance_beside(self.world, item_indices(subject_ids, self.world), item_indices(item_ids, self.world))

    def of_queries(self, queries: pl.Series, item_ids: pl.Series) -> NDArray[np.float64]:
        """Return the relevance of each item to its query, 0 to 1; NaN for a query of another log [pairs].

        Raises:
            ValueError: an unknown item.
        """
        meanings = self._meanings()
        asked = queries.unique().drop_nulls()
        known = {text: meanings[text] for text in asked if text in meanings}
        found = np.full(len(queries), np.nan)
        place = queries.replace_strict(list(known), range(len(known)), default=None, return_dtype=pl.Int64)
        rows = np.flatnonzero(place.is_not_null().to_numpy())
        if len(rows):
            leaves = np.array([leaf for leaf, _ in known.values()])
            styles = np.array([style for _, style in known.values()])
            chosen = place.gather(rows).to_numpy()
            item = item_indices(item_ids.gather(rows), self.world)
            found[rows] = relevance_to_query(self.world, leaves[chosen], styles[chosen], item=item)
        return found

    def of_candidates(self, candidates: pl.DataFrame) -> NDArray[np.float64]:
        """Return the relevance of each candidate to its subject item or query, 0 to 1; NaN for neither [candidates].

        Args:
            candidates: subject_item_id, query, item_id. The subject item counts where a candidate has both.

        Raises:
            ValueError: an unknown item.
        """
        beside = candidates["subject_item_id"].is_not_null()
        found = self.of_queries(candidates["query"], candidates["item_id"])
        shown = candidates.filter(beside)
        found[beside.to_numpy()] = self.of_pairs(shown["subject_item_id"], shown["item_id"])
        return found

    def _meanings(self) -> dict[str, tuple[int, NDArray[np.float64]]]:
        """Return the leaf and the style (8,) of each query that the world writes."""
        leaves = self.world.catalogue.leaves
        adjectives = {"": np.zeros(STYLE_DIMENSIONS)}
        for dimension, ends in enumerate(STYLE_WORDS):
            for word, direction in zip(ends, (1.0, -1.0), strict=True):
                adjectives[f"{word.lower()} "] = direction * np.eye(STYLE_DIMENSIONS)[dimension]
        return {
            f"{adjective}{leaves.noun(leaf).lower()}": (leaf, style)
            for leaf in range(leaves.count)
            for adjective, style in adjectives.items()
        }

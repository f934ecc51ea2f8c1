"""The true relevance of an item beside a subject, which no model reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.world.dynamics import World
from warehouse.world.generate import read_settings
from warehouse.world.market.requests import meaning
from warehouse.world.market.truth import relevance_beside, relevance_to_words
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

    def of_queries(self, texts: pl.Series, item_ids: pl.Series) -> NDArray[np.float64]:
        """Return the relevance of each item to its query, 0 to 1 [pairs].

        Raises:
            ValueError: an unknown item, or a query that nobody types in this world.
        """
        leaf, style = meaning(self.world, texts)
        return relevance_to_words(self.world, leaf, style, item_indices(item_ids, self.world))

    def of_candidates(self, pairs: pl.DataFrame) -> NDArray[np.float64]:
        """Return the relevance of each item to its subject item, or else to its query, 0 to 1 [pairs].

        Args:
            pairs: ``subject_item_id``, ``query`` and ``item_id``; a subject item or a query in each row.

        Raises:
            ValueError: as ``of_pairs`` and ``of_queries``.
        """
        beside = pairs["subject_item_id"].is_not_null()
        found = np.zeros(pairs.height)
        subjects, searches = pairs.filter(beside), pairs.filter(~beside)
        found[beside.to_numpy()] = self.of_pairs(subjects["subject_item_id"], subjects["item_id"])
        found[~beside.to_numpy()] = self.of_queries(searches["query"], searches["item_id"])
        return found

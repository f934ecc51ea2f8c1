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
from warehouse.world.market.requests import meanings
from warehouse.world.market.truth import relevance_beside, relevance_to_query
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
        """Return the relevance of each item beside its subject, 0 to 1; NaN where either is of no item [pairs]."""
        subject, item = self._rows(subject_ids), self._rows(item_ids)
        rows, found = np.flatnonzero((subject >= 0) & (item >= 0)), np.full(len(item), np.nan)
        found[rows] = relevance_beside(self.world, subject[rows], item[rows])
        return found

    def of_queries(self, queries: pl.Series, item_ids: pl.Series) -> NDArray[np.float64]:
        """Return the relevance of each item to its query, 0 to 1; NaN for a query or an item of another log [pairs]."""
        (leaf, style), item = meanings(self.world, queries), self._rows(item_ids)
        rows, found = np.flatnonzero((leaf >= 0) & (item >= 0)), np.full(len(queries), np.nan)
        found[rows] = relevance_to_query(self.world, leaf[rows], style[rows], item=item[rows])
        return found

    def of_candidates(self, candidates: pl.DataFrame) -> NDArray[np.float64]:
        """Return the relevance of each candidate to its subject item or query, 0 to 1 [candidates].

        NaN for neither, and for an id or a query that the world does not have: whoever asks the service may invent one.

        Args:
            candidates: subject_item_id, query, item_id. The subject item counts where a candidate has both.
        """
        beside = candidates["subject_item_id"].is_not_null()
        found = self.of_queries(candidates["query"], candidates["item_id"])
        shown = candidates.filter(beside)
        found[beside.to_numpy()] = self.of_pairs(shown["subject_item_id"], shown["item_id"])
        return found

    def _rows(self, item_ids: pl.Series) -> NDArray[np.int64]:
        """Return the index of each item, -1 for an id that the world does not have [ids]."""
        ids = self.world.catalogue.items.ids
        known = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
        asked = pl.DataFrame({"id": item_ids.cast(pl.String)})
        found = asked.join(known, on="id", how="left", maintain_order="left")["row"].fill_null(-1)
        return found.to_numpy().astype(np.int64)

    def called_relevant(self, relevance: NDArray[np.float64], *, label: int) -> NDArray[np.float64]:
        """Return the probability that a rater gives ``label`` or more to candidates of a true relevance [candidates].

        A rater rounds 1 + 4 x relevance after an error of ``rater_noise`` points.
        """
        from scipy.special import ndtr  # Dagster loads this module, and needs no distribution

        beyond = 1 + 4 * relevance - (label - 0.5)
        noise = self.world.settings.rater_noise
        found: NDArray[np.float64] = ndtr(beyond / noise) if noise else (beyond >= 0).astype(np.float64)
        return np.where(np.isnan(relevance), np.nan, found)

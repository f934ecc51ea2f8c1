"""What an interest looks like: as an item that stands for those under it.

The model has learnt what to do beside an item, and hardly ever from interests without one. So a search, and a home feed
that names interests, show it the middle of the items that these interests have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.content import category_nodes
from ml.features.hashing import hash_column
from ml.features.items import CATEGORY_LEVELS, ItemFeatures


@dataclass(frozen=True)
class InterestProfiles:
    """The profile of each interest that the catalogue has, by row."""

    row_of: dict[str, int]
    content: NDArray[np.float32]  # [interests, content] of unit length, zero where no item's is known
    category: NDArray[np.int64]  # [interests, CATEGORY_LEVELS] buckets of the path's nodes, zero where it is no path

    @classmethod
    def of(cls, catalogue: pl.DataFrame, features: ItemFeatures, buckets: int) -> InterestProfiles:
        """Return the profiles of the interests in the catalogue's category_path and stated_interests.

        Args:
            catalogue: one row an item, in the order of ``features``.
            buckets: the buckets of the category hash.
        """
        pairs = item_interests(catalogue)
        names = pairs["interest"].unique().sort()
        member = pairs.join(names.to_frame().with_row_index("number"), on="interest")
        content = np.zeros((len(names), features.content.shape[1]), np.float32)
        np.add.at(content, member["number"].to_numpy(), features.content[member["item"].to_numpy()])
        content /= np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-9)
        paths = category_nodes(catalogue["category_path"]).explode().drop_nulls().unique()
        nodes = category_nodes(names.set(~names.is_in(paths.implode()), None))
        levels = [nodes.list.get(level, null_on_oob=True) for level in range(CATEGORY_LEVELS)]
        category = np.concatenate([hash_column(level, buckets) for level in levels], axis=1)
        return cls({name: row for row, name in enumerate(names)}, content, category)

    def of_mixture(self, interests: Mapping[str, float]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return content [content] and category [CATEGORY_LEVELS] of a mixture of interests.

        The content is the middle of the interests by weight, the category is the strongest interest's. Both are zero
        where the catalogue has none of the interests.
        """
        known = [(weight, self.row_of[name]) for name, weight in interests.items() if name in self.row_of]
        if not known:
            return np.zeros(self.content.shape[1], np.float32), np.zeros(CATEGORY_LEVELS, np.int64)
        weights, rows = (np.array(each) for each in zip(*known, strict=True))
        mixed: NDArray[np.float32] = (weights.astype(np.float32) @ self.content[rows]).astype(np.float32)
        mixed /= max(float(np.linalg.norm(mixed)), 1e-9)
        return mixed, self.category[rows[weights.argmax()]]


def item_interests(catalogue: pl.DataFrame) -> pl.DataFrame:
    """Return ``item`` (row) and ``interest``: the item's stated interests, or else the nodes of its category path."""
    stated = catalogue["stated_interests"].list.eval(pl.element().struct.field("interest"))
    nodes = pl.select(pl.when(stated.list.len() > 0).then(stated).otherwise(category_nodes(catalogue["category_path"])))
    pairs = pl.DataFrame({"item": np.arange(len(catalogue)), "interest": nodes.to_series()})
    return pairs.explode("interest").drop_nulls("interest")

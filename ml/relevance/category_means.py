"""The means of each category: what its items have in common, so that what lies beyond it is an item's own style."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.co_engagement import unit_rows
from ml.features.content import category_nodes
from ml.features.hashing import hash_column
from ml.features.items import CATEGORY_LEVELS

Values = NDArray[np.float32]


@dataclass(frozen=True)
class ContentWidths:
    """The widths of the first two parts of an item's content, [graph ; given], as the content basis has them."""

    graph: int
    given: int


@dataclass(frozen=True)
class CategoryMeans:
    """Means over the items of each node of the category tree; row 0 is "no known category", all zero.

    Attributes:
        row_of: node of the tree, as a path -> row.
        buckets: [rows, CATEGORY_LEVELS] of the nodes of the path, root first, 0 = none.
        graph, given, text: [rows, width] means of unit rows. log_price: [rows], NaN without a price.
    """

    row_of: dict[str, int]
    buckets: NDArray[np.int64]
    graph: Values
    given: Values
    text: Values
    log_price: Values

    @classmethod
    def of(
        cls, paths: pl.Series, *, graph: Values, given: Values, text: Values, log_price: Values, buckets: int
    ) -> CategoryMeans:
        """Return the means over the items under each node; a vector of zeros or a price of NaN does not count.

        Args:
            paths: [items] category paths. graph, given, text: [items, width]. log_price: [items].
            buckets: of the hash of category nodes.
        """
        member = pl.DataFrame({"item": np.arange(len(paths)), "node": category_nodes(paths)}).explode("node")
        member = member.drop_nulls("node")
        nodes = member["node"].unique().sort()
        row_of = {node: row for row, node in enumerate(nodes, start=1)}
        row = member["node"].replace_strict(row_of, return_dtype=pl.Int64).to_numpy()
        groups = _Groups(member["item"].to_numpy(), row, len(nodes) + 1)
        priced = np.isfinite(log_price)
        price = groups.means(np.nan_to_num(log_price)[:, None], priced)[:, 0]
        return cls(
            row_of,
            buckets=_buckets_of(pl.concat([pl.Series([None], dtype=pl.String), nodes]), buckets),
            graph=groups.means(graph, _known(graph)),
            given=groups.means(given, _known(given)),
            text=groups.means(text, _known(text)),
            log_price=np.where(groups.counts(priced) > 0, price, np.nan).astype(np.float32),
        )

    def rows_of(self, paths: pl.Series) -> NDArray[np.int64]:
        """Return the row of each category path, 0 where it is null or no item has it."""
        found = paths.str.split(">").list.eval(pl.element().str.strip_chars()).list.join(" > ")
        return found.replace_strict(self.row_of, default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()

    def first_known(self, names: Iterable[str]) -> int:
        """Return the row of the first of ``names`` that is a node of the category tree; 0 without one."""
        return next((self.row_of[name] for name in names if name in self.row_of), 0)


def split_content(content: Values, widths: ContentWidths) -> tuple[Values, Values]:
    """Return the graph part and the given part of contents, unit or zero rows."""
    graph, given = content[:, : widths.graph], content[:, widths.graph : widths.graph + widths.given]
    return unit_rows(graph), unit_rows(given)


def _buckets_of(paths: pl.Series, buckets: int) -> NDArray[np.int64]:
    """Return the buckets of the nodes of each path [paths, CATEGORY_LEVELS], root first, 0 = none."""
    nodes = category_nodes(paths)
    levels = [nodes.list.get(level, null_on_oob=True) for level in range(CATEGORY_LEVELS)]
    return np.concatenate([hash_column(level, buckets) for level in levels], axis=1)


def _known(vectors: Values) -> NDArray[np.bool_]:
    return np.asarray(vectors.any(axis=1), bool)


@dataclass(frozen=True)
class _Groups:
    """The items under each node: ``item`` and ``row`` are [members], and there are ``rows`` rows."""

    item: NDArray[np.int64]
    row: NDArray[np.int64]
    rows: int

    def counts(self, known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the number of known items of each row [rows]."""
        return np.bincount(self.row[known[self.item]], minlength=self.rows).astype(np.float64)

    def means(self, values: Values, known: NDArray[np.bool_]) -> Values:
        """Return the mean of the known items of each row [rows, width]; zero without a known item."""
        members = np.flatnonzero(known[self.item])
        sums = np.zeros((self.rows, values.shape[1]), np.float32)
        np.add.at(sums, self.row[members], values[self.item[members]])
        return (sums / np.maximum(self.counts(known), 1)[:, None]).astype(np.float32)

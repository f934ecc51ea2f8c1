"""Content embeddings of items: given ones, or the spectral embedding of the co-engagement graph of the training period.

The graph embedding is the truncated SVD of the shifted positive PMI matrix, which is what skip-gram with negative
sampling factorises implicitly (Levy & Goldberg, 2014, "Neural Word Embedding as Implicit Matrix Factorization"); rows
are U S^0.5, scaled to unit length. A new item gets the mean content of its advertiser and its deepest known category.
The basis is frozen with the model version: a user's events mean the same to the encoder for as long as it is deployed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.sequences import EventLog, row_numbers
from settings import FeatureSettings

SEPARATOR = " > "
ROUNDING = 1e-5  # rows of the decomposition below this share of the longest one are rounding errors


@dataclass(frozen=True)
class ContentBasis:
    """Frozen content: vectors of the known items, and attribute means from which the others are derived."""

    source: str  # "given" or "co-engagement graph"
    items: pl.DataFrame  # item_id, vector list[f32]
    means: pl.DataFrame  # kind ("advertiser" | "category"), key, vector list[f32]
    price_mean: float  # of log(1 + price)
    price_deviation: float
    width: int

    def content_of(self, items: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Content [items, width] and, for every item, what it would get if it were new [items, width].

        An item that the basis holds keeps its vector, whatever its attributes are by now; another one takes its given
        embedding where the basis is of given embeddings, else the mean of its attributes.
        """
        cold = self._from_attributes(items)
        row = row_numbers(self.items["item_id"], items["item_id"])
        content = cold.copy()
        if self.source == "given":
            given, known = _given(items["embedding"], self.width)
            content[known] = given[known]
        content[row >= 0] = _matrix(self.items["vector"], self.width)[row[row >= 0]]
        return content, cold

    def to_frame(self) -> pl.DataFrame:
        """The basis as one table: kind ("item", "advertiser", "category", "price", "source"), key, vector."""
        vector = pl.List(pl.Float32)
        price = [self.price_mean, self.price_deviation]
        about = pl.DataFrame(
            {
                "kind": ["price", "source"],
                "key": ["mean, deviation", self.source],
                "vector": [price, [float(self.width)]],
            },
            schema_overrides={"vector": vector},
        )
        items = self.items.select(kind=pl.lit("item"), key="item_id", vector="vector")
        return pl.concat([about, items, self.means.select("kind", "key", "vector")])

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> ContentBasis:
        """The inverse of ``to_frame``."""
        price = frame.filter(kind="price")["vector"][0]
        source = frame.filter(kind="source")
        return cls(
            source=source["key"][0],
            items=frame.filter(kind="item").select(item_id="key", vector="vector"),
            means=frame.filter(pl.col("kind").is_in(["advertiser", "category"])).select("kind", "key", "vector"),
            price_mean=float(price[0]),
            price_deviation=float(price[1]),
            width=int(source["vector"][0][0]),
        )

    def _from_attributes(self, items: pl.DataFrame) -> NDArray[np.float32]:
        by_advertiser, has_advertiser = self._lookup("advertiser", items["advertiser_id"])
        by_category = np.zeros_like(by_advertiser)
        has_category = np.zeros(len(items), bool)
        nodes = category_nodes(items["category"])
        levels = int(nodes.list.len().max() or 0)  # type: ignore[arg-type]
        for level in range(levels):  # the deepest level that the basis knows wins
            found, known = self._lookup("category", nodes.list.get(level, null_on_oob=True))
            by_category[known], has_category = found[known], has_category | known
        total = by_advertiser * has_advertiser[:, None] + by_category * has_category[:, None]
        return unit_rows(total)

    def _lookup(self, kind: str, keys: pl.Series) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        table = self.means.filter(kind=kind)
        row = row_numbers(table["key"], keys)
        vectors = np.zeros((len(keys), self.width), np.float32)
        vectors[row >= 0] = _matrix(table["vector"], self.width)[row[row >= 0]]
        return vectors, row >= 0


def build_content_basis(items: pl.DataFrame, log: EventLog, settings: FeatureSettings, seed: int) -> ContentBasis:
    """Freeze the content of the training period.

    Args:
        items: the catalogue as of the training period's end, sorted by item_id; ``log.item`` are its rows.
        log: events of the training period only.
    """
    if items["embedding"].is_not_null().mean() >= 0.5:  # type: ignore[operator]
        width = int(items["embedding"].list.len().max())  # type: ignore[arg-type]
        source = "given"
        vectors, known = _given(items["embedding"], width)
    else:
        source = "co-engagement graph"
        counts = co_engagement(log, len(items), settings.graph_window_events)
        vectors = ppmi_svd(counts, settings.content_dimensions, settings.ppmi_shift, seed)
        width, known = vectors.shape[1], np.linalg.norm(vectors, axis=1) > 0
    logarithm = np.log1p(items["price"].drop_nulls().to_numpy())
    return ContentBasis(
        source=source,
        items=_frame(items["item_id"].filter(pl.Series(known)), vectors[known], "item_id"),
        means=_attribute_means(items, vectors, known),
        price_mean=float(logarithm.mean()) if len(logarithm) else 0.0,
        price_deviation=float(max(logarithm.std(), 1e-6)) if len(logarithm) else 1.0,
        width=width,
    )


def co_engagement(log: EventLog, items: int, window: int, within_seconds: float = np.inf) -> sp.csr_array:
    """Symmetric counts [items, items] of pairs of different items of one user at most ``window`` events and less than
    ``within_seconds`` apart."""
    user = log.user_of_event()
    counts = sp.csr_array((items, items), dtype=np.float32)
    for distance in range(1, window + 1):
        left, right = log.item[:-distance], log.item[distance:]
        keep = (user[:-distance] == user[distance:]) & (left >= 0) & (right >= 0) & (left != right)
        keep &= log.seconds[distance:] - log.seconds[:-distance] < within_seconds
        if not keep.any():
            continue
        ones = np.ones(int(keep.sum()), np.float32)
        counts = counts + sp.csr_array((ones, (left[keep], right[keep])), shape=(items, items))
    return (counts + counts.T).tocsr()


def ppmi_svd(counts: sp.csr_array, dimensions: int, shift: float, seed: int) -> NDArray[np.float32]:
    """Rows U S^0.5 of the shifted PPMI matrix, unit length. Items without a pair get zero rows, and so do those that
    the leading dimensions say nothing of (a small component of the graph): scaling would make content of noise.

    PPMI_ij = max(0, log(c_ij sum(c) / (c_i c_j)) - log shift). Returns [items, dimensions].
    """
    from sklearn.decomposition import TruncatedSVD

    items = counts.shape[0]
    degree = np.asarray(counts.sum(axis=1)).ravel()
    pairs = counts.tocoo()
    if not pairs.nnz:
        return np.zeros((items, dimensions), np.float32)
    pmi = np.log(pairs.data * degree.sum() / (degree[pairs.row] * degree[pairs.col])) - np.log(shift)
    positive = pmi > 0
    matrix = sp.csr_matrix(
        (pmi[positive].astype(np.float32), (pairs.row[positive], pairs.col[positive])), shape=counts.shape
    )
    rank = min(dimensions, items - 1)
    decomposition = TruncatedSVD(rank, algorithm="randomized", n_iter=4, random_state=seed)
    scaled = decomposition.fit_transform(matrix) / np.sqrt(np.maximum(decomposition.singular_values_, 1e-12))
    length = np.linalg.norm(scaled, axis=1)
    vectors = np.zeros((items, dimensions), np.float32)
    vectors[:, :rank] = np.where((length > ROUNDING * length.max())[:, None], scaled, 0)
    return unit_rows(vectors)


def category_nodes(category: pl.Series) -> pl.Series:
    """Each category path as the list of its prefixes: ``A > B`` gives [``A``, ``A > B``]; null gives an empty list."""
    unique = category.drop_nulls().unique()
    prefixes = [
        [SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts))]
        for parts in ([part.strip() for part in path.split(">")] for path in unique)
    ]
    table = pl.DataFrame({"path": unique, "nodes": prefixes}, schema={"path": pl.String, "nodes": pl.List(pl.String)})
    joined = category.alias("path").to_frame().join(table, on="path", how="left", maintain_order="left")
    return joined["nodes"].fill_null(pl.lit([], dtype=pl.List(pl.String)))


def unit_rows(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length; zero rows stay zero."""
    return (matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _attribute_means(items: pl.DataFrame, vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> pl.DataFrame:
    rows = pl.Series("row", np.arange(len(items)))
    nodes = pl.DataFrame({"row": rows, "key": category_nodes(items["category"])}).explode("key")
    keyed = pl.concat(
        [
            pl.DataFrame({"row": rows, "key": items["advertiser_id"]}).with_columns(kind=pl.lit("advertiser")),
            nodes.with_columns(kind=pl.lit("category")),
        ]
    ).drop_nulls("key")
    keyed = keyed.filter(pl.Series(known[keyed["row"].to_numpy()]))
    groups = keyed.select("kind", "key").unique().sort("kind", "key").with_columns(group=pl.int_range(pl.len()))
    member = keyed.join(groups, on=["kind", "key"], how="left", maintain_order="left")
    sums = np.zeros((len(groups), vectors.shape[1]), np.float32)
    np.add.at(sums, member["group"].to_numpy(), vectors[member["row"].to_numpy()])
    return groups.select("kind", "key").with_columns(pl.Series("vector", unit_rows(sums)).cast(pl.List(pl.Float32)))


def _given(embedding: pl.Series, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Given embeddings as unit rows [items, width], and which items have a usable one (right length, not zero)."""
    usable = (embedding.list.len() == width).fill_null(False).to_numpy()
    vectors = np.zeros((len(embedding), width), np.float32)
    vectors[usable] = _matrix(embedding.filter(pl.Series(usable)), width)
    vectors = unit_rows(vectors)
    return vectors, np.linalg.norm(vectors, axis=1) > 0


def _matrix(column: pl.Series, width: int) -> NDArray[np.float32]:
    return (
        column.explode().cast(pl.Float32).to_numpy().reshape(-1, width)
        if len(column)
        else np.zeros((0, width), np.float32)
    )


def _frame(ids: pl.Series, vectors: NDArray[np.float32], key: str) -> pl.DataFrame:
    return pl.DataFrame({key: ids}).with_columns(pl.Series("vector", vectors).cast(pl.List(pl.Float32)))

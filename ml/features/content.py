"""Content embeddings of items: the embedding of an item in the co-engagement graph of the training period, followed by
the embedding that the catalogue gives, where the catalogue gives any, and by the vector of the item's title, where the
catalogue has titles.

The graph part of a new item is the mean graph content of the item's advertiser and of the item's deepest known
category; the given part and the text part are the item's own. An item without a usable given embedding has the one
that its title predicts, and so has a search query, of which nothing else is known. The basis is frozen with the model
version: as long as the model is deployed, a user's events mean the same to the encoder, and so do the words of a query.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.co_engagement import spectral_embedding, unit_rows
from ml.features.event_log import EventLog, row_numbers
from ml.features.hashing import known_advertisers
from ml.features.text import TextBasis
from settings import FeatureSettings

SEPARATOR = " > "
GIVEN_SHARE = 0.5  # given embeddings are used where at least this share of the items has one
RIDGE = 10.0  # in titles: how many of them a direction of the text space needs before it predicts an embedding


@dataclass(frozen=True)
class ContentBasis:
    """Frozen content: vectors of the known items, and means by attribute, from which other items get their vectors.

    A vector is [graph ; given ; text], each part of unit length or zero, scaled to unit length as a whole.
    """

    items: pl.DataFrame  # item_id, vector list[f32] of ``width``
    means: pl.DataFrame  # kind ("advertiser" | "category"), key, vector list[f32] of ``graph_width``
    price_mean: float  # of log(1 + price)
    price_deviation: float
    graph_width: int
    given_width: int  # 0 where the catalogue gives no embeddings
    text: TextBasis = field(default_factory=TextBasis.empty)  # of the titles; its width is 0 where there are none
    given_of_text: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """[text width, given width]: the given embedding that a text predicts, up to its length."""

    @property
    def width(self) -> int:
        return self.graph_width + self.given_width + self.text.width

    @property
    def source(self) -> str:
        """Return the sources of the content, as a text for people."""
        given = ["given embeddings"] if self.given_width else []
        return " and ".join(["co-engagement graph", *given, *(["titles"] if self.text.width else [])])

    def content_of(self, items: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the content of each item [items, width], and the content as if the item were new [items, width].

        An item that the basis holds keeps its vector, even if its attributes have changed since.
        """
        text = self.text.vectors_of(items["title"])
        given = _given(items["embedding"], self.given_width)
        given = np.where(given.any(axis=1, keepdims=True), given, self._predicted(text))
        cold = unit_rows(np.concatenate([self._from_attributes(items), given, text], axis=1))
        row = row_numbers(self.items["item_id"], items["item_id"])
        content = cold.copy()
        content[row >= 0] = _matrix(self.items["vector"], self.width)[row[row >= 0]]
        return content, cold

    def with_texts(self, content: NDArray[np.float32], texts: pl.Series) -> NDArray[np.float32]:
        """Return the content [rows, width] with the text parts of ``texts``, and the given parts that these predict.

        A row stays as it is where its text is null, or where the titles do not know the text.
        """
        text = self.text.vectors_of(texts)
        known = text.any(axis=1)
        graph = unit_rows(content[known, : self.graph_width])
        changed = content.copy()
        changed[known] = unit_rows(np.concatenate([graph, self._predicted(text[known]), text[known]], axis=1))
        return changed

    def graph_of(self, item_ids: pl.Series) -> NDArray[np.float32]:
        """Return the graph part of the vectors, unit rows [items, graph_width]; zero for an item outside the basis."""
        row = row_numbers(self.items["item_id"], item_ids)
        vectors = np.zeros((len(item_ids), self.graph_width), np.float32)
        vectors[row >= 0] = _matrix(self.items["vector"], self.width)[row[row >= 0], : self.graph_width]
        return unit_rows(vectors)

    def to_frame(self) -> pl.DataFrame:
        """Return the basis as one table: kind, key, vector.

        The kinds are "item", "advertiser", "category", "n-gram" (of the titles, by its hash bucket), "given of text"
        (a row of the prediction), "price" and "width".
        """
        vector = pl.List(pl.Float32)
        about = pl.DataFrame(
            {
                "kind": ["price", "width"],
                "key": ["mean, deviation", "graph, given, text"],
                "vector": [
                    [self.price_mean, self.price_deviation],
                    [float(self.graph_width), float(self.given_width), float(self.text.width)],
                ],
            },
            schema_overrides={"vector": vector},
        )
        items = self.items.select(kind=pl.lit("item"), key="item_id", vector="vector")
        n_grams = self.text.to_frame().select(
            kind=pl.lit("n-gram"), key=pl.col("bucket").cast(pl.String), vector="vector"
        )
        rows = self.given_of_text.tolist() if self.given_width else []
        predicted = pl.DataFrame(
            {
                "kind": "given of text",
                "key": pl.Series([str(row) for row in range(len(rows))], dtype=pl.String),
                "vector": pl.Series(rows, dtype=vector),
            }
        )
        return pl.concat([about, items, self.means.select("kind", "key", "vector"), n_grams, predicted])

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> ContentBasis:
        """Return the basis that ``to_frame`` has turned into a table; a table from before there were texts has none."""
        price, widths = frame.filter(kind="price")["vector"][0], frame.filter(kind="width")["vector"][0]
        return cls(
            items=frame.filter(kind="item").select(item_id="key", vector="vector"),
            means=frame.filter(pl.col("kind").is_in(["advertiser", "category"])).select("kind", "key", "vector"),
            price_mean=float(price[0]),
            price_deviation=float(price[1]),
            graph_width=int(widths[0]),
            given_width=int(widths[1]),
            text=TextBasis.from_frame(
                frame.filter(kind="n-gram").select(bucket=pl.col("key").cast(pl.Int64), vector="vector")
            ),
            given_of_text=_matrix(frame.filter(kind="given of text")["vector"], int(widths[1])),
        )

    def _predicted(self, text: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the given embeddings that text vectors [rows, text width] predict, unit rows [rows, given width]."""
        if not self.given_of_text.size:
            return np.zeros((len(text), self.given_width), np.float32)
        return unit_rows(text @ self.given_of_text)

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
        vectors = np.zeros((len(keys), self.graph_width), np.float32)
        vectors[row >= 0] = _matrix(table["vector"], self.graph_width)[row[row >= 0]]
        return vectors, row >= 0


def build_content_basis(items: pl.DataFrame, log: EventLog, settings: FeatureSettings, seed: int) -> ContentBasis:
    """Freeze the content of the training period.

    Args:
        items: the catalogue as of the training period's end, sorted by item_id; ``log.item`` are its rows.
        log: events of the training period only.
    """
    text = TextBasis.of(items["title"], settings.text_dimensions, seed)
    return freeze(items, spectral_embedding(log, len(items), settings.content_dimensions, seed), text)


def freeze(items: pl.DataFrame, graph: NDArray[np.float32], text: TextBasis | None = None) -> ContentBasis:
    """Freeze a catalogue's content.

    Args:
        graph: [items, graph_width] the graph content, unit or zero rows.
        text: the space of the titles; None: titles are no content.
    """
    text = text or TextBasis.empty()
    lengths = items["embedding"].list.len()
    some_given = float(items["embedding"].is_not_null().mean() or 0.0) >= GIVEN_SHARE  # type: ignore[arg-type]
    given = _given(items["embedding"], int(lengths.max() or 0) if some_given else 0)  # type: ignore[arg-type]
    titles = text.vectors_of(items["title"])
    given_of_text = _prediction(titles, given)
    predicted = unit_rows(titles @ given_of_text)
    shown = np.where(given.any(axis=1, keepdims=True), given, predicted)
    vectors = unit_rows(np.concatenate([graph, shown, titles], axis=1))
    in_graph = np.linalg.norm(graph, axis=1) > 0
    logarithm = np.log1p(items["price"].drop_nulls().to_numpy())
    return ContentBasis(
        # An item that is not in the graph is left out: its content is that of a new one, for as long as it is new.
        items=_frame(items["item_id"].filter(pl.Series(in_graph)), vectors[in_graph]),
        means=_attribute_means(items, graph, in_graph),
        price_mean=float(logarithm.mean()) if len(logarithm) else 0.0,
        price_deviation=float(max(logarithm.std(), 1e-6)) if len(logarithm) else 1.0,
        graph_width=graph.shape[1],
        given_width=given.shape[1],
        text=text,
        given_of_text=given_of_text,
    )


def _prediction(text: NDArray[np.float32], given: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ridge regression of the given embeddings on the text vectors [text width, given width].

    Items without one of the two are left out.
    """
    both = text.any(axis=1) & given.any(axis=1)
    gram = text[both].T.astype(np.float64) @ text[both] + RIDGE * np.eye(text.shape[1])
    found: NDArray[np.float32] = np.linalg.solve(gram, text[both].T.astype(np.float64) @ given[both]).astype(np.float32)
    return found


def category_nodes(category: pl.Series) -> pl.Series:
    """Return each category path as the list of its prefixes; null gives an empty list.

    >>> category_nodes(pl.Series(["Home > Kitchen", None])).to_list()
    [['Home', 'Home > Kitchen'], []]
    """
    unique = category.drop_nulls().unique()
    prefixes = [
        [SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts))]
        for parts in ([part.strip() for part in path.split(">")] for path in unique)
    ]
    table = pl.DataFrame({"path": unique, "nodes": prefixes}, schema={"path": pl.String, "nodes": pl.List(pl.String)})
    joined = category.alias("path").to_frame().join(table, on="path", how="left", maintain_order="left")
    return joined["nodes"].fill_null(pl.lit([], dtype=pl.List(pl.String)))


def _attribute_means(items: pl.DataFrame, vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> pl.DataFrame:
    rows = pl.Series("row", np.arange(len(items)))
    nodes = pl.DataFrame({"row": rows, "key": category_nodes(items["category"])}).explode("key")
    keyed = pl.concat(
        [
            pl.DataFrame({"row": rows, "key": known_advertisers(items["advertiser_id"])}).with_columns(
                kind=pl.lit("advertiser")
            ),
            nodes.with_columns(kind=pl.lit("category")),
        ]
    ).drop_nulls("key")
    keyed = keyed.filter(pl.Series(known[keyed["row"].to_numpy()]))
    groups = keyed.select("kind", "key").unique().sort("kind", "key").with_columns(group=pl.int_range(pl.len()))
    member = keyed.join(groups, on=["kind", "key"], how="left", maintain_order="left")
    sums = np.zeros((len(groups), vectors.shape[1]), np.float32)
    np.add.at(sums, member["group"].to_numpy(), vectors[member["row"].to_numpy()])
    return groups.select("kind", "key").with_columns(pl.Series("vector", unit_rows(sums)).cast(pl.List(pl.Float32)))


def _given(embedding: pl.Series, width: int) -> NDArray[np.float32]:
    """Return the given embeddings as unit rows [items, width].

    The row is zero where an item has no usable embedding: one of the right length that is not zero.
    """
    vectors = np.zeros((len(embedding), width), np.float32)
    if width:
        usable = (embedding.list.len() == width).fill_null(False).to_numpy()
        vectors[usable] = _matrix(embedding.filter(pl.Series(usable)), width)
        vectors = unit_rows(vectors)
    return vectors


def _matrix(column: pl.Series, width: int) -> NDArray[np.float32]:
    return (
        column.explode().cast(pl.Float32).to_numpy().reshape(-1, width)
        if len(column)
        else np.zeros((0, width), np.float32)
    )


def _frame(ids: pl.Series, vectors: NDArray[np.float32]) -> pl.DataFrame:
    return pl.DataFrame({"item_id": ids}).with_columns(pl.Series("vector", vectors).cast(pl.List(pl.Float32)))

"""The text space of a catalogue's titles: a vector of any text that shares words, or parts of words, with the titles.

A text is the sum of its character n-grams, weighted by how few titles have each of them, in the space that the
leading singular vectors of the titles span. So a misspelt word and a word that no title has still lie near the titles
that look alike. The space is frozen with the model version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.features.co_engagement import unit_rows

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import HashingVectorizer

SHORTEST, LONGEST = 2, 4  # characters of an n-gram; a space marks the begin and the end of a word
BUCKETS = 2**16
POWER_ITERATIONS = 7
LEAST_KNOWN = 1 / 3  # share of a text's n-grams that the titles have: with fewer of them the text is in other words
ROUNDING = 1e-4  # a direction of this share of the strongest one's strength is rounding


@dataclass(frozen=True)
class TextBasis:
    """The frozen text space: the vector of each n-gram that the titles have, its weight included.

    The vectors of near titles are near, and those of queries that share their words; see ``vectors_of``.
    """

    buckets: NDArray[np.int64]  # [n-grams] hash buckets, ascending
    projection: NDArray[np.float32]  # [n-grams, width]

    @classmethod
    def of(cls, titles: pl.Series, dimensions: int, seed: int) -> TextBasis:
        """Return the space of the titles that are known, each counted once, whatever their order.

        The space has fewer than ``dimensions`` where the titles span fewer, and none where no title is known.
        """
        from sklearn.utils.extmath import randomized_svd

        known = titles.drop_nulls().unique().sort()
        counts = _counts(known.to_list(), _vectorizer())
        buckets = np.unique(counts.indices).astype(np.int64)
        rank = min(dimensions, len(known), len(buckets))
        if rank < 1:
            return cls.empty()
        counts = counts[:, buckets]
        titles_with = np.bincount(counts.indices, minlength=len(buckets))
        weight = (1 + np.log((1 + len(known)) / (1 + titles_with))).astype(np.float32)
        weighted = sp.csr_matrix(counts @ sp.diags_array(weight), dtype=np.float32)
        unit = sp.csr_matrix(sp.diags_array(1 / sp.linalg.norm(weighted, axis=1)) @ weighted, dtype=np.float32)
        _, strength, right = randomized_svd(unit, rank, n_iter=POWER_ITERATIONS, random_state=seed)
        projection = weight[:, None] * right[strength > ROUNDING * strength.max()].T
        return cls(buckets, np.ascontiguousarray(projection, np.float32))

    @classmethod
    def empty(cls) -> TextBasis:
        """Return the space without a dimension, of a catalogue without titles."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))

    @property
    def width(self) -> int:
        return self.projection.shape[1]

    def vectors_of(self, texts: pl.Series) -> NDArray[np.float32]:
        """Return unit rows [texts, width].

        A row is zero where a text is null, or where the titles have less than ``LEAST_KNOWN`` of its n-grams.
        """
        vectors = np.zeros((len(texts), self.width), np.float32)
        known = [row for row, text in enumerate(texts) if text]
        if not self.width or not known:
            return vectors
        counts = _counts([texts[row] for row in known], self._vectorizer)
        row = np.minimum(np.searchsorted(self.buckets, counts.indices), len(self.buckets) - 1)
        has = self.buckets[row] == counts.indices
        shape = (len(known), len(self.buckets))
        shared = sp.csr_matrix((counts.data * has, row, counts.indptr), shape=shape) @ self.projection
        owner = np.repeat(np.arange(len(known)), np.diff(counts.indptr))
        enough = np.bincount(owner, has, len(known)) >= LEAST_KNOWN * np.diff(counts.indptr)
        vectors[known] = unit_rows(shared) * enough[:, None]
        return vectors

    def to_frame(self) -> pl.DataFrame:
        """Return the space as a table: bucket, vector."""
        vectors = pl.Series("vector", self.projection, dtype=pl.Array(pl.Float32, self.width)).arr.to_list()
        return pl.DataFrame({"bucket": pl.Series(self.buckets), "vector": vectors})

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> TextBasis:
        """Return the space that ``to_frame`` has turned into a table."""
        width = int(frame["vector"].list.len().max() or 0)  # type: ignore[arg-type]
        return cls(
            frame["bucket"].to_numpy().astype(np.int64),
            frame["vector"].explode().cast(pl.Float32).drop_nulls().to_numpy().reshape(len(frame), width),
        )

    @cached_property
    def _vectorizer(self) -> HashingVectorizer:
        return _vectorizer()


def _vectorizer() -> HashingVectorizer:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(SHORTEST, LONGEST),
        n_features=BUCKETS,
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    )


def _counts(texts: list[str], vectorizer: HashingVectorizer) -> sp.csr_matrix:
    """Return 1 + log of how often each text has the n-grams of each bucket [texts, BUCKETS]."""
    if not texts:
        return sp.csr_matrix((0, BUCKETS), dtype=np.float32)
    counts = vectorizer.transform(texts)
    counts.data = 1 + np.log(counts.data)
    return counts

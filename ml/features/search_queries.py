"""What a search query is about: interests, by how its words match category names and titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from ml.features.interest_profiles import item_interests

MATCHED_INTERESTS = 3
LEAST_MATCH = 0.2  # cosine of TF-IDF below which words have nothing to do with each other
LEAST_SHARE = 0.5  # of the best match: "book" is a bookshelf, and what shares two letters with it is nothing beside
QUERIES_AT_ONCE = 1_000  # bounds the matrix of queries and interests
TITLE_SHARE = 0.5  # an interest is known by its name first, then by the titles of its items


@dataclass(frozen=True)
class InterestMatcher:
    """Interests as documents: the words of their name, and of their items' titles."""

    names: list[str]  # interests as the catalogue states them, or its category nodes, as paths
    vectorizer: TfidfVectorizer
    matrix: sp.csr_matrix  # [names, terms] unit length

    @classmethod
    def of(cls, catalogue: pl.DataFrame) -> InterestMatcher | None:
        """Return the matcher of the catalogue's title, category_path and stated_interests; None without an interest."""
        pairs = item_interests(catalogue)
        if not len(pairs):
            return None
        pairs = pairs.with_columns(title=catalogue["title"].gather(pairs["item"]))
        titles = pl.col("title").drop_nulls().unique().sort().head(200).str.join(" ")
        documents = pairs.group_by("interest").agg(titles=titles).sort("interest")
        names = documents["interest"].to_list()
        own = [name.split(">")[-1].strip() for name in names]
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
        found = vectorizer.fit_transform(own + documents["titles"].to_list())
        return cls(names, vectorizer, sp.csr_matrix(found[: len(own)] + TITLE_SHARE * found[len(own) :]))

    def interests(self, query: str) -> dict[str, float]:
        """Return the categories nearest to a query and the confidences, best first; none where nothing matches."""
        return self.interests_of([query])[0]

    def interests_of(self, queries: Sequence[str]) -> list[dict[str, float]]:
        """Return what ``interests`` returns of each query. One query costs almost as much as many."""
        found = []
        for begin in range(0, len(queries), QUERIES_AT_ONCE):
            match = self.vectorizer.transform(queries[begin : begin + QUERIES_AT_ONCE]) @ self.matrix.T
            found += [self._best(row) for row in match.toarray()]
        return found

    def _best(self, match: NDArray[np.float32]) -> dict[str, float]:
        best = np.argsort(-match, kind="stable")[:MATCHED_INTERESTS]
        least = max(LEAST_MATCH, LEAST_SHARE * float(match[best[0]]))
        return {self.names[row]: min(1.0, float(match[row])) for row in best if match[row] >= least}

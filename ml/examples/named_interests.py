"""The context of a request that names interests, by itself or by a search query, and has no subject item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.examples.context import NO_SUBJECT, Context, Topics
from ml.features.content import ContentBasis
from ml.features.event_log import row_numbers
from ml.features.hashing import bucket
from ml.features.interest_profiles import InterestProfiles
from ml.features.items import CATEGORY_LEVELS, MAXIMUM_INTERESTS, ItemFeatures
from ml.features.search_queries import InterestMatcher

NO_QUERY = pl.Series([None], dtype=pl.String)


def named_interests(mixtures: Sequence[Mapping[str, float]], profiles: InterestProfiles, buckets: int) -> Context:
    """Return the context of requests that name interests with confidences, one mixture a request.

    The most confident interests count, at most ``MAXIMUM_INTERESTS``. Their profiles stand in the place of the content
    and the category of a subject. The service and the reports ask the models with this context.

    Args:
        mixtures: [requests] interest -> confidence; an empty one gives no context.
        buckets: the buckets of the category hash.
    """
    shape = (len(mixtures), MAXIMUM_INTERESTS)
    interests, confidence = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    content = np.zeros((len(mixtures), profiles.content.shape[1]), np.float32)
    category = np.zeros((len(mixtures), CATEGORY_LEVELS), np.int64)
    for row, mixture in enumerate(mixtures):
        best = sorted(mixture.items(), key=lambda pair: -pair[1])[:MAXIMUM_INTERESTS]
        interests[row, : len(best)] = [bucket(name, buckets, 0) for name, _ in best]
        confidence[row, : len(best)] = [weight for _, weight in best]
        content[row], category[row] = profiles.of_mixture(dict(best))
    return Context(np.full(len(mixtures), NO_SUBJECT), interests, confidence, Topics(content, category))


def with_words(named: Context, queries: pl.Series, basis: ContentBasis) -> Context:
    """Return the context with the words of the queries [requests] in the place of a title's; null changes nothing.

    A query whose words the titles know has a context, also where it names no interest.
    """
    assert named.topics is not None
    return replace(named, topics=replace(named.topics, content=basis.with_texts(named.topics.content, queries)))


def search_context(
    queries: pl.Series, items: pl.DataFrame, features: ItemFeatures, *, basis: ContentBasis, buckets: int
) -> Context:
    """Return the context of search queries, as the service makes it from the same catalogue; none where one is null.

    Args:
        queries: [requests] what was typed.
        items: title, category and interests of the catalogue, in the rows of ``features``.
        basis: of ``features``. buckets: the buckets of the category hash.
    """
    searches = Searches.of(queries, items, [features], basis=basis, buckets=buckets)
    return searches.views[0].take(searches.row)


@dataclass(frozen=True)
class Searches:
    """The contexts of some queries, each different query once, under one or several contents of the catalogue."""

    row: NDArray[np.int64]  # [queries] row of each query in every view; 0 where the query is null
    views: list[Context]  # a content of the catalogue: [1 + different queries], the first without context

    @classmethod
    def of(
        cls,
        queries: pl.Series,
        items: pl.DataFrame,
        views: Sequence[ItemFeatures],
        *,
        basis: ContentBasis,
        buckets: int,
    ) -> Searches:
        """Return the contexts of queries under each of ``views``, which differ by their content.

        The other arguments are those of ``search_context``.
        """
        catalogue = items.select("title", category_path="category", stated_interests="interests")
        matcher, distinct = InterestMatcher.of(catalogue), queries.drop_nulls().unique().sort()
        about = [{}, *(matcher.interests_of(distinct.to_list()) if matcher else [{}] * len(distinct))]
        texts = pl.concat([NO_QUERY, distinct])
        contexts = []
        for features in views:
            named = named_interests(about, InterestProfiles.of(catalogue, features, buckets), buckets)
            contexts.append(with_words(named, texts, basis))
        return cls(row_numbers(distinct, queries) + 1, contexts)

    def over(self, context: Context, rows: NDArray[np.int64], view: int) -> Context:
        """Return the context of the queries of ``rows``, with that of the search where there is a query."""
        row = self.row[rows]
        return with_searches(context, self.views[view].take(row), row > 0)


def with_searches(context: Context, searches: Context, typed: NDArray[np.bool_]) -> Context:
    """Return the context, with the one of ``searches`` where a query was ``typed`` [queries]; subjects stay."""
    return replace(
        searches,
        subject=context.subject,
        interests=np.where(typed[:, None], searches.interests, context.interests),
        confidence=np.where(typed[:, None], searches.confidence, context.confidence),
    )

"""The context of a request that names interests, by itself or by a search query, and has no subject item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ml.examples.context import NO_SUBJECT, Context, Topics
from ml.features.hashing import bucket
from ml.features.interest_profiles import InterestProfiles
from ml.features.items import CATEGORY_LEVELS, MAXIMUM_INTERESTS, ItemFeatures
from ml.features.search_queries import InterestMatcher


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


def search_context(queries: pl.Series, items: pl.DataFrame, features: ItemFeatures, buckets: int) -> Context:
    """Return the context of search queries, as the service makes it from the same catalogue; none where one is null.

    Args:
        queries: [requests] what was typed.
        items: title, category and interests of the catalogue, in the rows of ``features``.
    """
    catalogue = items.select("title", category_path="category", stated_interests="interests")
    matcher, profiles = InterestMatcher.of(catalogue), InterestProfiles.of(catalogue, features, buckets)
    about = {query: matcher.interests(query) if matcher else {} for query in queries.drop_nulls().unique()}
    return named_interests([about.get(query, {}) for query in queries], profiles, buckets)

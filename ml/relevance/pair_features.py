"""Pair features: what the catalogue says of a candidate beside a subject item, or below a query, as of its day.

A feature that is not known is NaN. Trees treat NaN as a value of its own, so each feature carries the flag whether it
is known; the share of known values is the coverage that monitoring watches. No feature counts what users did with the
candidate, because relevance is not popularity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.features.co_engagement import unit_rows
from ml.features.event_log import row_numbers
from ml.features.hashing import bucket, hash_column, known_advertisers
from ml.features.items import CATEGORY_LEVELS, MAXIMUM_INTERESTS, ItemFeatures
from ml.features.search_queries import InterestMatcher
from ml.features.text import TextBasis
from ml.relevance.category_means import CategoryMeans, ContentWidths, split_content

Values = NDArray[np.float32]
Codes = NDArray[np.int64]
UNKNOWN = -1
"""The code of an advertiser or a content type that is not known."""
ADVERTISER_BUCKETS = 2**40
PAIRS_AT_ONCE = 20_000
FEEDBACK_ITEMS = 20_000
"""Items whose titles say what a word looks like; of a larger catalogue an even sample."""
LEAST_LIKENESS = 0.5
"""Cosine of two styles of titles from which both say the same."""


class PairFeature(StrEnum):
    """The features of a pair, in the order of their columns. The place is the subject item or the query."""

    is_query = "is_query"  # 1 below a query, 0 beside a subject item
    same_category_1 = "same_category_1"  # whether the first level of the category paths is the same
    same_category_2 = "same_category_2"
    same_category_3 = "same_category_3"
    same_category_4 = "same_category_4"
    shared_interests = "shared_interests"  # cosine of the interests by confidence; of a query those that it names
    other_interests = "other_interests"  # the same of the interests that are no node of the category path
    given_content = "given_content"  # cosine of the catalogue's embeddings
    given_style = "given_style"  # the same of what the embeddings have beyond the mean of their category
    graph_content = "graph_content"  # cosine in the co-engagement graph
    graph_style = "graph_style"  # the same of what the graph content has beyond the mean of the category
    category_graph = "category_graph"  # the same of the two categories' means: what is bought together
    text = "text"  # cosine of the subject's title, or of the query, with the candidate's title
    text_style = "text_style"  # the same of what the texts have beyond the mean title of their category
    log_price_ratio = "log_price_ratio"  # of the candidate over the subject
    price_level_ratio = "price_level_ratio"  # the same of log prices over the mean of their category
    same_advertiser = "same_advertiser"
    same_content_type = "same_content_type"
    candidate_type = "candidate_type"  # content type of the candidate: its place in the list of known content types


FEATURE_NAMES = tuple(feature.value for feature in PairFeature)


@dataclass(frozen=True)
class Traits:
    """What the features read of items or places, one row each.

    Attributes:
        category: [rows, CATEGORY_LEVELS] buckets, 0 = none. interests: [rows, MAXIMUM_INTERESTS] buckets, 0 = none.
        confidence: [rows, MAXIMUM_INTERESTS].
        given, graph, text: [rows, width] unit rows, zero = not known.
        category_graph: [rows, width] mean ``graph`` of the category, unit rows, zero = not known.
        given_style, graph_style, text_style: [rows, width] what lies beyond the category's mean, unit rows, zero = not
            known.
        log_price: [rows] NaN = not known. price_level: [rows] ``log_price`` less the category's mean.
        advertiser, content_type: [rows] codes, ``UNKNOWN``. is_query: [rows].
    """

    category: Codes
    interests: Codes
    confidence: Values
    given: Values
    given_style: Values
    graph: Values
    graph_style: Values
    category_graph: Values
    text: Values
    text_style: Values
    log_price: Values
    price_level: Values
    advertiser: Codes
    content_type: Codes
    is_query: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.category)

    def take(self, rows: Codes) -> Traits:
        """Return the traits of some rows, repeats allowed."""
        return Traits(**{name: getattr(self, name)[rows] for name in Traits.__annotations__})

    @classmethod
    def together(cls, parts: Sequence[Traits]) -> Traits:
        """Return the rows of all parts, in their order."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__annotations__})


@dataclass(frozen=True)
class NamedStyles:
    """What the words of titles look like: the styles of an even sample of the items, [sampled, width] each."""

    text: Values
    given: Values
    graph: Values

    @classmethod
    def of(cls, items: Traits) -> NamedStyles:
        """Return the styles of at most ``FEEDBACK_ITEMS`` items."""
        step = -(-len(items) // FEEDBACK_ITEMS) or 1
        sampled = (values[::step] for values in (items.text_style, items.given_style, items.graph_style))
        return cls(*map(np.ascontiguousarray, sampled))

    def mean(self, style: Values, of_items: Values) -> Values:
        """Return the mean style of the items whose titles have a query's style [queries, width]; zero without any.

        The words say a style, and the items that are called so show what it looks like: pseudo-relevance feedback, as
        in Rocchio, 1971, "Relevance feedback in information retrieval".

        Args:
            style: [queries, text width] of the words. of_items: ``given`` or ``graph``.
        """
        likeness = style @ self.text.T
        return unit_rows(np.where(likeness >= LEAST_LIKENESS, likeness, 0).astype(np.float32) @ of_items)


@dataclass(frozen=True)
class PairCatalogue:
    """The catalogue of a day, as pair features read it.

    Attributes:
        item_ids: [items] by catalogue row. items: traits by catalogue row.
        named_so: what the words of titles look like.
        matcher: finds the interests that a query names; None where the catalogue has no interests.
        buckets: of the hash of categories and interests.
    """

    item_ids: pl.Series
    items: Traits
    named_so: NamedStyles
    categories: CategoryMeans
    matcher: InterestMatcher | None
    text: TextBasis
    buckets: int

    @classmethod
    def of(
        cls,
        catalogue: pl.DataFrame,
        features: ItemFeatures,
        *,
        matcher: InterestMatcher | None,
        text: TextBasis,
        widths: ContentWidths,
        content_types: Sequence[str],
        buckets: int,
    ) -> PairCatalogue:
        """Return the catalogue of pair features.

        Args:
            catalogue: item_id, title, category_path, amount, advertiser_id, content_type, in the rows of ``features``.
            widths: of the parts of the content. content_types: those with a code, which is a place in them.
            buckets: of the hash of categories and interests in ``features``.
        """
        graph, given = split_content(features.content, widths)
        words, paths = text.vectors_of(catalogue["title"]), catalogue["category_path"]
        log_price = np.log1p(catalogue["amount"].cast(pl.Float64).fill_null(np.nan).to_numpy()).astype(np.float32)
        means = CategoryMeans.of(paths, graph=graph, given=given, text=words, log_price=log_price, buckets=buckets)
        row = means.rows_of(paths)
        items = Traits(
            category=features.category,
            interests=features.interests,
            confidence=features.confidence,
            given=given,
            given_style=_beyond(given, means.given[row]),
            graph=graph,
            graph_style=_beyond(graph, means.graph[row]),
            category_graph=unit_rows(means.graph[row]),
            text=words,
            text_style=_beyond(words, means.text[row]),
            log_price=log_price,
            price_level=log_price - means.log_price[row],
            advertiser=hash_column(known_advertisers(catalogue["advertiser_id"]), ADVERTISER_BUCKETS)[:, 0] - 1,
            content_type=codes_of(catalogue["content_type"], content_types),
            is_query=np.zeros(len(catalogue), bool),
        )
        return cls(catalogue["item_id"], items, NamedStyles.of(items), means, matcher, text, buckets)

    def queries(self, queries: pl.Series) -> Traits:
        """Return the traits of search queries: the words, and the interests and the category that the words name."""
        count, matcher = len(queries), self.matcher
        named = [list((matcher.interests(query) if matcher and query else {}).items()) for query in queries]
        interests, confidence = np.zeros((count, MAXIMUM_INTERESTS), np.int64), np.zeros((count, MAXIMUM_INTERESTS))
        for number, pairs in enumerate(pairs[:MAXIMUM_INTERESTS] for pairs in named):
            interests[number, : len(pairs)] = [bucket(name, self.buckets, 0) for name, _ in pairs]
            confidence[number, : len(pairs)] = [weight for _, weight in pairs]
        row = np.array([self.categories.first_known(name for name, _ in pairs) for pairs in named], np.int64)
        words = self.text.vectors_of(queries)
        style = _beyond(words, self.categories.text[row])
        return Traits(
            category=self.categories.buckets[row],
            interests=interests,
            confidence=confidence.astype(np.float32),
            given=unit_rows(self.categories.given[row]),
            given_style=self.named_so.mean(style, self.named_so.given),
            graph=unit_rows(self.categories.graph[row]),
            graph_style=self.named_so.mean(style, self.named_so.graph),
            category_graph=unit_rows(self.categories.graph[row]),
            text=words,
            text_style=style,
            log_price=np.full(count, np.nan, np.float32),
            price_level=np.full(count, np.nan, np.float32),
            advertiser=np.full(count, UNKNOWN),
            content_type=np.full(count, UNKNOWN),
            is_query=np.ones(count, bool),
        )

    def features_of(self, pairs: pl.DataFrame) -> tuple[NDArray[np.bool_], Values]:
        """Return which pairs the catalogue can describe [pairs], and the features of these [described, features].

        A pair is described where the catalogue has the candidate, and the subject item or a query is there.

        Args:
            pairs: subject_item_id, query, item_id.
        """
        item = row_numbers(self.item_ids, pairs["item_id"])
        subject = row_numbers(self.item_ids, pairs["subject_item_id"])
        asked = pairs["query"].is_not_null().to_numpy() & (subject < 0)
        described = (item >= 0) & ((subject >= 0) | asked)
        found = np.zeros((len(pairs), len(PairFeature)), np.float32)
        queries = pairs["query"].unique().drop_nulls().sort()
        words, word = self.queries(queries), row_numbers(queries, pairs["query"])
        for rows, places, place in ((described & ~asked, self.items, subject), (described & asked, words, word)):
            for block in np.array_split(np.flatnonzero(rows), int(rows.sum()) // PAIRS_AT_ONCE + 1):
                found[block] = pair_features(places.take(place[block]), self.items.take(item[block]))
        return described, found[described]


def pair_features(place: Traits, candidate: Traits) -> Values:
    """Return the features of pairs [pairs, features], NaN where not known, in the order of ``PairFeature``.

    Args:
        place, candidate: one row a pair, or one place for all candidates.
    """
    both = (place.category > 0) & (candidate.category > 0)
    same = np.where(both, place.category == candidate.category, np.nan)
    advertised = (place.advertiser >= 0) & (candidate.advertiser >= 0)
    typed = (place.content_type >= 0) & (candidate.content_type >= 0)
    columns = {
        PairFeature.is_query: np.broadcast_to(place.is_query, len(candidate)),
        **{PairFeature(f"same_category_{level + 1}"): same[:, level] for level in range(CATEGORY_LEVELS)},
        PairFeature.shared_interests: _set_cosine(place, candidate, place.confidence, candidate.confidence),
        PairFeature.other_interests: _set_cosine(place, candidate, _others(place), _others(candidate)),
        PairFeature.given_content: _cosine(place.given, candidate.given),
        PairFeature.given_style: _cosine(place.given_style, candidate.given_style),
        PairFeature.graph_content: _cosine(place.graph, candidate.graph),
        PairFeature.graph_style: _cosine(place.graph_style, candidate.graph_style),
        PairFeature.category_graph: _cosine(place.category_graph, candidate.category_graph),
        PairFeature.text: _cosine(place.text, candidate.text),
        PairFeature.text_style: _cosine(place.text_style, candidate.text_style),
        PairFeature.log_price_ratio: candidate.log_price - place.log_price,
        PairFeature.price_level_ratio: candidate.price_level - place.price_level,
        PairFeature.same_advertiser: np.where(advertised, place.advertiser == candidate.advertiser, np.nan),
        PairFeature.same_content_type: np.where(typed, place.content_type == candidate.content_type, np.nan),
        PairFeature.candidate_type: np.where(candidate.content_type >= 0, candidate.content_type, np.nan),
    }
    return np.stack([np.asarray(columns[feature], np.float32) for feature in PairFeature], axis=1)


def codes_of(values: pl.Series, known: Sequence[str]) -> Codes:
    """Return the place of each value in ``known``; ``UNKNOWN`` for another value and for null.

    >>> codes_of(pl.Series(["video", None, "poster"]), ["shopping", "video"]).tolist()
    [1, -1, -1]
    """
    codes = {name: code for code, name in enumerate(known)}
    return values.cast(pl.String).replace_strict(codes, default=UNKNOWN, return_dtype=pl.Int64).to_numpy()


def _beyond(vectors: Values, mean: Values) -> Values:
    """Return what unit rows have beyond a mean [rows, width], unit rows; zero where a row or its mean is zero."""
    known = np.flatnonzero(vectors.any(axis=1) & mean.any(axis=1))
    beyond = np.zeros_like(vectors)
    beyond[known] = unit_rows(vectors[known] - mean[known])
    return beyond


def _cosine(left: Values, right: Values) -> Values:
    """Return the inner product of unit rows [pairs]; NaN where a row is zero, or has no column."""
    known = left.any(axis=1) & right.any(axis=1)
    return np.where(known, (left * right).sum(axis=1), np.nan).astype(np.float32)


def _others(traits: Traits) -> Values:
    """Return the confidence of the interests that are no node of the row's own category path, 0 for the others."""
    is_node: NDArray[np.bool_] = traits.interests[:, :, None] == traits.category[:, None, :]
    return np.where(is_node.any(axis=2), 0, traits.confidence).astype(np.float32)


def _set_cosine(place: Traits, candidate: Traits, left: Values, right: Values) -> Values:
    """Return the cosine of two weighted sets of interests [pairs]; NaN where one of them is empty.

    Args:
        left, right: [rows, MAXIMUM_INTERESTS] weights of the interests of ``place`` and ``candidate``.
    """
    given = np.where(place.interests > 0, place.interests, UNKNOWN)
    equal: NDArray[np.bool_] = given[:, :, None] == candidate.interests[:, None, :]
    together = (equal * left[:, :, None] * right[:, None, :]).sum(axis=(1, 2))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.where(lengths > 0, together / np.maximum(lengths, 1e-9), np.nan).astype(np.float32)

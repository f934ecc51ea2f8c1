"""The context of search queries: interests with confidences, and their profiles in the place of a subject's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from ml.examples.context import NO_SUBJECT, Context, subject_context
from ml.examples.named_interests import Searches, named_interests, search_context
from ml.features.content import freeze
from ml.features.hashing import bucket
from ml.features.interest_profiles import InterestProfiles
from ml.features.items import build_item_features
from ml.features.text import TextBasis
from ml.models.tensors import CatalogueTensors
from settings import FeatureSettings
from tests.ml.worlds import item_frame

BUCKETS = FeatureSettings().category_buckets
ITEMS = item_frame(
    ["a", "b", "c"], title=["Oak Chair", "Red Chair", "Desk Lamp"], category=["Home > Chair", "Home > Chair", "Lamp"]
)
GRAPH = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
WITHOUT_TEXT = freeze(ITEMS, GRAPH)
FEATURES = build_item_features(ITEMS, WITHOUT_TEXT, FeatureSettings())
MIDDLE = np.array([1, 1]) / np.sqrt(2)


def searched(*queries: str | None) -> Context:
    return search_context(pl.Series(queries, dtype=pl.String), ITEMS, FEATURES, basis=WITHOUT_TEXT, buckets=BUCKETS)


def test_a_query_shows_the_middle_of_the_items_that_it_names_and_their_category() -> None:
    found = searched("chair")
    assert found.topics is not None
    np.testing.assert_allclose(found.topics.content[0], MIDDLE, atol=1e-6)
    assert found.topics.category[0].tolist() == FEATURES.category[0].tolist()
    assert found.interests[0, 0] == bucket("Home > Chair", BUCKETS, 0)
    assert 0 < found.confidence[0, 0] <= 1
    assert found.subject.tolist() == [NO_SUBJECT]
    assert found.present.tolist() == [True]


def test_what_names_nothing_and_what_is_no_query_is_no_context() -> None:
    found = searched("0000", None)
    assert found.topics is not None
    assert not found.present.any()
    assert not found.topics.content.any()
    assert not found.topics.category.any()
    nothing = search_context(pl.Series(["chair"]), ITEMS.clear(), FEATURES, basis=WITHOUT_TEXT, buckets=BUCKETS)
    assert not nothing.present.any()


def test_rows_are_taken_and_dropped_with_their_topics() -> None:
    found = searched("chair", "lamp")
    assert found.topics is not None
    taken, dropped = found.take(np.array([1])), found.without(np.array([True, False]))
    assert taken.topics is not None
    assert dropped.topics is not None
    assert np.array_equal(taken.topics.content, found.topics.content[1:])
    assert not dropped.topics.content[0].any()
    assert not dropped.topics.category[0].any()
    assert np.array_equal(dropped.topics.content[1], found.topics.content[1])
    assert dropped.present.tolist() == [False, True]


def test_the_tensors_show_a_subject_where_there_is_one_and_the_topic_elsewhere() -> None:
    profiles = InterestProfiles.of(
        ITEMS.select("title", category_path="category", stated_interests="interests"), FEATURES, BUCKETS
    )
    named = named_interests([{"Home > Chair": 1.0}] * 2, profiles, BUCKETS)
    both = Context(np.array([2, NO_SUBJECT]), named.interests, named.confidence, named.topics)
    batch = CatalogueTensors(FEATURES).context(both)
    np.testing.assert_allclose(batch.content.numpy(), [GRAPH[2], MIDDLE], atol=1e-6)
    assert batch.category.tolist() == [FEATURES.category[2].tolist(), FEATURES.category[0].tolist()]
    assert batch.advertiser[0].tolist() == FEATURES.advertiser[2].tolist()
    assert not batch.advertiser[1].any()


def test_a_query_shows_its_own_words_in_the_place_of_a_titles() -> None:
    basis = freeze(ITEMS, GRAPH, TextBasis.of(ITEMS["title"], 8, seed=0))
    features = build_item_features(ITEMS, basis, FeatureSettings())
    found = search_context(pl.Series(["oak chair", "red chair", None]), ITEMS, features, basis=basis, buckets=BUCKETS)
    assert found.topics is not None
    graph, text = np.split(found.topics.content, [2], axis=1)
    np.testing.assert_allclose(graph[:2], [MIDDLE / np.sqrt(2)] * 2, atol=1e-6)  # both name the same interest
    np.testing.assert_allclose(text[:2], features.content[:2, 2:], atol=1e-6)  # each is an item's title
    assert not found.topics.content[2].any()


def test_words_of_titles_are_a_context_without_an_interest() -> None:
    items = ITEMS.with_columns(category=pl.lit(None, pl.String))
    basis = freeze(items, GRAPH, TextBasis.of(items["title"], 8, seed=0))
    features = build_item_features(items, basis, FeatureSettings())
    found = search_context(pl.Series(["red", "0000"]), items, features, basis=basis, buckets=BUCKETS)
    assert found.present.tolist() == [True, False]


def test_searches_see_each_query_under_each_content() -> None:
    queries = pl.Series(["lamp", None, "chair", "lamp"])
    other = replace(FEATURES, content=FEATURES.content[:, ::-1].copy())
    found = Searches.of(queries, ITEMS, [FEATURES, other], basis=WITHOUT_TEXT, buckets=BUCKETS)
    beside = subject_context(np.array([NO_SUBJECT, 1]), FEATURES)
    for view, features in enumerate((FEATURES, other)):
        alone = search_context(queries, ITEMS, features, basis=WITHOUT_TEXT, buckets=BUCKETS)
        context = found.over(beside, np.array([3, 1]), view)
        assert context.topics is not None
        assert alone.topics is not None
        assert np.array_equal(context.topics.content[0], alone.topics.content[3])
        assert np.array_equal(context.interests[0], alone.interests[3])
        assert context.subject.tolist() == [NO_SUBJECT, 1]
        assert np.array_equal(context.interests[1], beside.interests[1])

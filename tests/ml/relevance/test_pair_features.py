"""Pair features of a small catalogue, worked by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.features.content import category_nodes
from ml.features.hashing import bucket, hash_column
from ml.features.items import CATEGORY_LEVELS, MAXIMUM_INTERESTS, ItemFeatures
from ml.features.search_queries import InterestMatcher
from ml.features.text import TextBasis
from ml.relevance.category_means import ContentWidths
from ml.relevance.pair_features import FEATURE_NAMES, PairCatalogue, Values, pair_features

BUCKETS = 4096
TYPES = ("shopping", "video")
ROWS = [
    # item, title, category, price, advertiser, type, graph, given
    ("a", "Rustic Lamp", "Home > Lighting", 10.0, "x", "shopping", [1, 0], [1, 0, 0]),
    ("b", "Modern Lamp", "Home > Lighting", 30.0, "y", "video", [0, 1], [0, 1, 0]),
    ("c", "Rustic Wok", "Kitchen > Cookware", None, "x", None, [1, 0], [0, 0, 0]),
    ("d", None, None, 10.0, None, "poster", [0, 0], [1, 0, 0]),
]


def catalogue() -> PairCatalogue:
    names = ("item_id", "title", "category_path", "amount", "advertiser_id", "content_type", "graph", "given")
    frame = pl.DataFrame([dict(zip(names, row, strict=True)) for row in ROWS], infer_schema_length=None)
    frame = frame.with_columns(
        stated_interests=pl.lit(None, pl.List(pl.Struct({"interest": pl.String, "confidence": pl.Float64})))
    )
    content = np.concatenate([np.array(frame["graph"].to_list(), float), np.array(frame["given"].to_list(), float)], 1)
    nodes = category_nodes(frame["category_path"])
    levels = [nodes.list.get(level, null_on_oob=True) for level in range(CATEGORY_LEVELS)]
    interests = np.zeros((len(ROWS), MAXIMUM_INTERESTS), np.int64)
    for row, path in enumerate(frame["category_path"]):
        if path is not None:
            interests[row, 0] = bucket(path, BUCKETS, 0)
    features = ItemFeatures(
        item_ids=frame["item_id"],
        content=content.astype(np.float32),
        cold_content=content.astype(np.float32),
        category=np.concatenate([hash_column(level, BUCKETS) for level in levels], axis=1),
        interests=interests,
        confidence=(interests > 0).astype(np.float32),
        advertiser=np.zeros((len(ROWS), 2), np.int64),
        price=np.zeros((len(ROWS), 2), np.float32),
        listed_from=np.full(len(ROWS), -np.inf),
    )
    return PairCatalogue.of(
        frame,
        features,
        matcher=InterestMatcher.of(frame),
        text=TextBasis.of(frame["title"], 8, 0),
        widths=ContentWidths(2, 3),
        content_types=TYPES,
        buckets=BUCKETS,
    )


def named(values: Values) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, values.tolist(), strict=True))


def beside(subject: str, candidate: str) -> dict[str, float]:
    pair = {"subject_item_id": [subject], "query": [None], "item_id": [candidate]}
    described, found = catalogue().features_of(pl.DataFrame(pair, schema_overrides={"query": pl.String}))
    assert described.all()
    return named(found[0])


def below(query: str, candidate: str) -> dict[str, float]:
    pair = {"subject_item_id": [None], "query": [query], "item_id": [candidate]}
    _, found = catalogue().features_of(pl.DataFrame(pair, schema_overrides={"subject_item_id": pl.String}))
    return named(found[0])


def test_features_beside_an_item_are_what_a_hand_works_out() -> None:
    found = beside("a", "b")
    assert (found["is_query"], found["same_category_1"], found["same_category_2"]) == (0, 1, 1)
    assert np.isnan(found["same_category_3"])  # neither path has a third level
    assert (found["same_advertiser"], found["same_content_type"], found["candidate_type"]) == (0, 0, 1)
    assert found["log_price_ratio"] == pytest.approx(np.log(31 / 11), abs=1e-6)
    assert (found["given_content"], found["graph_content"], found["category_graph"]) == pytest.approx(
        (0, 0, 1), abs=1e-6
    )
    # Both lie on opposite sides of their category's mean: as unlike in style as two items can be.
    assert (found["given_style"], found["graph_style"]) == pytest.approx((-1, -1), abs=1e-6)
    assert found["shared_interests"] == pytest.approx(1)
    assert found["text"] > 0.3


def test_a_pair_shares_the_levels_of_its_paths_only() -> None:
    found = beside("a", "c")
    assert (found["same_category_1"], found["same_category_2"], found["same_advertiser"]) == (0, 0, 1)
    assert found["graph_content"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("candidate", "unknown"),
    [
        (
            "c",
            {
                "given_content",
                "given_style",
                "log_price_ratio",
                "price_level_ratio",
                "same_content_type",
                "candidate_type",
            },
        ),
        ("d", {"same_category_1", "graph_content", "category_graph", "text", "same_advertiser", "candidate_type"}),
    ],
)
def test_what_the_catalogue_does_not_know_is_nan_and_not_a_number(candidate: str, unknown: set[str]) -> None:
    found = beside("a", candidate)
    assert {name for name in unknown if not np.isnan(found[name])} == set()


def test_a_query_has_its_words_its_category_and_the_style_of_items_that_are_called_so() -> None:
    lamp, wok = below("rustic lamp", "a"), below("rustic lamp", "c")
    assert (lamp["is_query"], lamp["same_category_2"], wok["same_category_2"]) == (1, 1, 0)
    assert lamp["text"] > wok["text"]
    assert lamp["given_style"] > below("rustic lamp", "b")["given_style"]
    for unknown in ("log_price_ratio", "same_advertiser", "same_content_type"):
        assert np.isnan(lamp[unknown])


def test_a_pair_that_the_catalogue_cannot_describe_is_left_out() -> None:
    pairs = {
        "subject_item_id": ["a", "gone", None, "a"],
        "query": [None, None, None, None],
        "item_id": ["b", "b", "b", "gone"],
    }
    described, found = catalogue().features_of(pl.DataFrame(pairs, schema_overrides={"query": pl.String}))
    assert described.tolist() == [True, False, False, False]
    assert found.shape == (1, len(FEATURE_NAMES))


def test_one_place_and_many_candidates_are_many_pairs() -> None:
    items = catalogue().items
    rows = np.arange(4)
    together = pair_features(items.take(np.array([0])), items.take(rows))
    apart = pair_features(items.take(np.zeros(4, np.int64)), items.take(rows))
    np.testing.assert_array_equal(together, apart)

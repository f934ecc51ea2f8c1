"""Item features: statistics as of an instant against a slow reference, attributes against hand-worked values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.features.content import ContentBasis
from ml.features.hashing import bucket
from ml.features.items import DAY, ItemFeatures, ItemStatistics, build_item_features, build_item_statistics, item_groups
from settings import FeatureSettings
from tests.ml.worlds import START, instant, item_frame

ITEMS = 4
WINDOWS = [1.0, 7.0]


def slow_statistics(events: pd.DataFrame, listed: list[float], now: float) -> NDArray[np.float64]:
    """The definition, item by item: events is item, seconds."""
    rows = []
    begin = min([now, *events[events["item"] >= 0]["seconds"]])
    for item in range(ITEMS):
        own = events[(events["item"] == item) & (events["seconds"] < now)]["seconds"]
        counts = [int((own >= now - days * DAY).sum()) for days in WINDOWS] + [len(own)]
        ever = events[events["item"] == item]["seconds"]
        # Always listed: an item without an event is as old as the log.
        since = min([listed[item], *ever]) if np.isfinite(listed[item]) else min(own, default=begin)
        age_days = max(now - since, 0) / DAY
        rows.append([*(np.log1p(count) for count in counts), np.log1p(age_days) / 4, float(len(own) > 0)])
    return np.array(rows)


@given(
    events=st.lists(st.tuples(st.integers(-1, ITEMS - 1), st.integers(0, 40)), max_size=40),
    available=st.lists(st.none() | st.integers(0, 40), min_size=ITEMS, max_size=ITEMS),
    now=st.integers(0, 42),
)
def test_statistics_equal_a_slow_reference(
    events: list[tuple[int, int]], available: list[int | None], now: int
) -> None:
    """Times are multiples of half a day, so that events fall on the edges of the windows."""
    since = [-np.inf if day is None else day * DAY / 2 for day in available]
    item, half_days = [item for item, _ in events], [day for _, day in events]
    seconds = np.array(half_days, np.float64) * DAY / 2
    statistics = build_item_statistics(np.array(item, np.int64), seconds, np.array(since), windows_days=WINDOWS)
    found = statistics.at(now * DAY / 2)
    frame = pd.DataFrame({"item": item, "seconds": seconds})
    assert found.shape == (ITEMS, statistics.width)
    np.testing.assert_allclose(found, slow_statistics(frame, since, now * DAY / 2), atol=1e-6)


@given(
    events=st.lists(st.tuples(st.integers(-1, ITEMS - 1), st.integers(0, 40)), max_size=40),
    listed=st.lists(st.sampled_from([-np.inf, np.inf]) | st.integers(0, 40), min_size=ITEMS, max_size=ITEMS),
    now=st.integers(0, 42),
)
def test_who_is_listed_and_how_an_item_does_are_those_of_the_log_cut_at_the_instant(
    events: list[tuple[int, int]], listed: list[float], now: int
) -> None:
    """And of the items that the feed has not listed by then it doesn't matter when, or whether, it does."""
    instant, since = now * DAY, np.array(listed) * DAY

    def statistics(known: list[tuple[int, int]], since: NDArray[np.float64]) -> ItemStatistics:
        item = np.array([item for item, _ in known], np.int64)
        return build_item_statistics(
            item, np.array([day * DAY for _, day in known], np.float64), since, windows_days=WINDOWS
        )

    whole = statistics(events, since)
    cut = statistics([event for event in events if event[1] < now], np.where(since < instant, since, np.inf))
    assert whole.listed(instant).tolist() == cut.listed(instant).tolist()
    np.testing.assert_array_equal(whole.at(instant), cut.at(instant))
    shown = {item for item, day in events if item >= 0 and day < now}
    assert set(np.flatnonzero(whole.listed(instant))) == shown | set(np.flatnonzero(since < instant))
    in_window = whole.listed_in_window(instant, instant + 5 * DAY)
    assert set(np.flatnonzero(in_window)) == shown | set(np.flatnonzero(since < instant + 5 * DAY))


def test_the_edges_of_a_window() -> None:
    """An event one window ago counts, one at the instant does not."""
    item, seconds = np.array([0, 1, 2]), np.array([0.0, 7 * DAY, -1.0])
    at = build_item_statistics(item, seconds, np.full(3, -np.inf), windows_days=[7.0]).at(7 * DAY)
    assert (at[:, 0] > 0).tolist() == [True, False, False]
    assert (at[:, 1] > 0).tolist() == [True, False, True]


def test_windows_in_any_order_give_their_own_counts() -> None:
    item, seconds = np.zeros(6, np.int64), np.arange(6, dtype=np.float64) * DAY
    ascending = build_item_statistics(item, seconds, np.full(1, -np.inf), windows_days=[1.0, 3.0]).at(6 * DAY)
    descending = build_item_statistics(item, seconds, np.full(1, -np.inf), windows_days=[3.0, 1.0]).at(6 * DAY)
    np.testing.assert_allclose(ascending[0, :3], np.log1p([1, 3, 6]), rtol=1e-6)
    np.testing.assert_allclose(descending[0, :3], np.log1p([3, 1, 6]), rtol=1e-6)


def basis() -> ContentBasis:
    vector = pl.List(pl.Float32)
    return ContentBasis(
        items=pl.DataFrame({"item_id": ["a"], "vector": [[1.0, 0.0]]}, schema_overrides={"vector": vector}),
        means=pl.DataFrame(
            {"kind": ["advertiser"], "key": ["nike"], "vector": [[0.0, 1.0]]}, schema_overrides={"vector": vector}
        ),
        price_mean=float(np.log1p(10.0)),
        price_deviation=2.0,
        graph_width=2,
        given_width=0,
    )


def features() -> ItemFeatures:
    items = item_frame(
        ["a", "b", "c"],
        advertiser_id=["nike", "nike", None],
        category=["Home > Chairs", "Home", None],
        price=[10.0, None, 0.0],
        interests=[None, [{"interest": "cats", "confidence": 0.3}, {"interest": "dogs", "confidence": 0.7}], None],
        listed_from=[START, None, None],
    )
    return build_item_features(items, basis(), FeatureSettings(category_buckets=64, advertiser_buckets=64))


def test_categories_are_buckets_of_the_nodes_root_first() -> None:
    home, chairs = bucket("Home", 64, 0), bucket("Home > Chairs", 64, 0)
    assert features().category.tolist() == [[home, chairs, 0, 0], [home, 0, 0, 0], [0, 0, 0, 0]]


def test_interests_are_the_given_ones_by_confidence_else_the_category_from_the_leaf_up() -> None:
    found = features()
    expected = [["Home > Chairs", "Home"], ["dogs", "cats"], []]
    assert found.interests.tolist() == [
        [bucket(name, 64, 0) for name in names] + [0] * (4 - len(names)) for names in expected
    ]
    np.testing.assert_allclose(found.confidence, np.array([[1, 0.5, 0, 0], [0.7, 0.3, 0, 0], [0, 0, 0, 0]]), rtol=1e-6)


def test_the_price_is_standardised_and_an_unknown_one_says_so() -> None:
    np.testing.assert_allclose(features().price, [[0, 1], [0, 0], [-np.log1p(10.0) / 2, 1]], rtol=1e-6)


def test_known_items_keep_their_content_and_new_ones_get_their_attributes() -> None:
    found = features()
    np.testing.assert_allclose(found.content, [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(found.cold_content, [[0, 1], [0, 1], [0, 0]])


def test_features_and_statistics_survive_the_table() -> None:
    before = features()
    statistics = np.arange(15, dtype=np.float32).reshape(3, 5)
    after, read = ItemFeatures.from_frame(before.to_frame(statistics))
    np.testing.assert_array_equal(read, statistics)
    assert after.item_ids.to_list() == before.item_ids.to_list()
    assert after.listed_from.tolist() == [instant(0), -np.inf, -np.inf]
    for name in ("content", "category", "interests", "confidence", "advertiser", "price"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
        assert getattr(after, name).dtype == getattr(before, name).dtype, name


def test_groups_count_what_their_items_did_together() -> None:
    """Two items of one advertiser with 3 and 1 events, one item of another with 2; the second window sees fewer."""
    item = np.array([0, 0, 0, 1, 2, 2])
    seconds = np.array([0.0, 9, 9.5, 9, 0, 9]) * DAY
    groups = (np.array([0, 0, 1]),)
    statistics = build_item_statistics(item, seconds, np.full(3, -np.inf), windows_days=[2.0], groups=groups)
    found = statistics.at(10 * DAY)
    assert found.shape == (3, statistics.width)
    whole, newest = 4 / 2**0.5, 3 / 2**0.5  # of the first advertiser: counts over the root of its two items
    np.testing.assert_allclose(found[:2, -2:], np.log1p([[newest, whole]] * 2), rtol=1e-5)
    np.testing.assert_allclose(found[2, -2:], np.log1p([1, 2]), rtol=1e-5)


def test_items_of_unknown_advertisers_are_no_group() -> None:
    items = item_frame(
        ["a", "b", "c", "d", "e"], advertiser_id=["x", None, "x", "unknown", "y"], category=["P", "Q", None, "P", "P"]
    )
    advertiser, category = item_groups(items)
    assert advertiser.tolist() == [0, -1, 0, -1, 1]
    assert category.tolist() == [0, 1, -1, 0, 0]
    sold_out = build_item_statistics(
        np.arange(5), np.zeros(5), np.full(5, -np.inf), windows_days=[7.0], groups=(advertiser, category)
    )
    found = sold_out.at(DAY)[:, -4:]
    of_three, of_two, alone = np.log1p(3 / 3**0.5), np.log1p(2 / 2**0.5), np.log1p(1)
    np.testing.assert_allclose(found[:, 0], [of_two, 0, of_two, 0, alone], rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], [of_three, alone, 0, of_three, of_three], rtol=1e-5)


def test_an_unknown_advertiser_has_no_bucket() -> None:
    items = item_frame(["a", "b", "c"], advertiser_id=["nike", "unknown", None])
    built = build_item_features(items, basis(), FeatureSettings(category_buckets=64, advertiser_buckets=64))
    assert (built.advertiser[0] > 0).all()
    assert not built.advertiser[1:].any()

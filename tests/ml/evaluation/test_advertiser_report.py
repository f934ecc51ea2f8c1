"""Recall of advertisers, by hand-made catalogues and against baselines."""

from __future__ import annotations

import numpy as np
import pytest

from ml.evaluation.advertiser_queries import AdvertiserQueries, advertiser_queries, query_lists, sampled_index
from ml.evaluation.advertiser_report import (
    AdvertiserComparison,
    baseline_lists,
    measure_advertisers,
)
from ml.evaluation.model_names import AdvertiserModelName as Name
from ml.examples.advertiser_period import AdvertiserPeriod
from ml.models.advertiser_model import AdvertiserNetwork
from ml.training.fit import Fit
from tests.ml.shops import NAMES, SETTINGS, data_of, period_of
from tests.ml.worlds import (
    EVENT_NAMES,
    instant,
    item_frame,
)

NO_MATTER = item_frame(["an item of nobody"])


def test_recall_on_a_hand_made_catalogue(shop: AdvertiserPeriod) -> None:
    """u goes on with a (known), b (known) and c (new, and unknown to everybody at day 30)."""
    data = data_of(shop.until(instant(30)))
    queries = advertiser_queries(shop, data, instant(30), settings=SETTINGS, maximum=10, index_size=10)
    assert queries.index.tolist() == [0, 1]  # c has neither event nor item before day 30
    assert queries.positives.items.tolist() == [0, 1, -1]
    assert queries.repeated.tolist() == [True, True, False]
    lists = baseline_lists(queries, 10.0, 100)
    assert lists["popularity"].items[0, :3].tolist() == [0, 1, -1]  # three events of a, one of b
    assert lists[Name.recent_advertisers].items[0, :2].tolist() == [0, 1]  # a on day 20, b on day 3
    figures = measure_advertisers(AdvertiserComparison(queries, lists, 2, 100), NAMES, [1, 10], samples=5, seed=0)
    assert figures.metrics[Name.popularity].recall == {1: pytest.approx(1 / 3)}  # an index of two has no ten
    novelty = dict(figures.by_novelty["popularity"].select("segment", "recall").rows())
    assert novelty == {"known": 0.5, "new": 0.0}  # at 1: the list begins with a, and b is known, too
    conversion = dict(figures.by_conversion["popularity"].select("segment", "recall").rows())
    assert conversion == {"add_to_cart": 0.0, "checkout": 1.0, "signup": 0.0}


def test_recent_advertisers_come_in_the_order_of_their_newest_event_then_the_popular_ones() -> None:
    rows: list[tuple[str, float, str, str | None, str | None]] = [
        ("u", 1, "page_visit", None, "a"),
        ("u", 2, "page_visit", None, "b"),
        ("u", 3, "page_visit", None, "a"),
        ("v", 4, "page_visit", None, "d"),
        ("v", 5, "page_visit", None, "c"),
        ("w", 6, "page_visit", None, "c"),
        ("u", 31, "signup", None, "d"),
    ]
    known = period_of(rows, NO_MATTER)
    queries = advertiser_queries(
        known, data_of(known.until(instant(30))), instant(30), settings=SETTINGS, maximum=10, index_size=10
    )
    shown = baseline_lists(queries, 40.0, 4)[Name.recent_advertisers].items[0]
    assert queries.advertisers.advertiser_ids.gather(shown).to_list() == ["a", "b", "c", "d"]


def test_the_model_beats_popularity_where_histories_tell_the_future(
    fitted: Fit[AdvertiserNetwork], queries: AdvertiserQueries
) -> None:
    lists = {
        **baseline_lists(queries, 15.0, 100),
        Name.advertiser_model: query_lists(fitted.network, queries, SETTINGS, 100),
    }
    figures = measure_advertisers(AdvertiserComparison(queries, lists, 12, 100), EVENT_NAMES, [1], samples=0, seed=0)
    assert figures.metrics[Name.advertiser_model].recall[1] > 0.8 > 3 * figures.metrics[Name.popularity].recall[1]


@pytest.mark.parametrize(("size", "expected"), [(50, 50), (3, 5), (1000, 100)])
def test_the_sampled_index_has_the_stated_size_and_every_known_positive(size: int, expected: int) -> None:
    known, positives = np.arange(0, 200, 2), np.array([-1, 0, 2, 4, 7, 100, 198])  # 7 was not known
    index = sampled_index(known, positives, size, seed=0)
    assert len(index) == len(set(index.tolist())) == expected
    assert np.isin([0, 2, 4, 100, 198], index).all()
    assert np.isin(index, known).all()
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(index, sampled_index(known, positives, size, seed=0))


def test_a_single_advertiser_is_reported_at_one() -> None:
    """A shop's own log: the index holds nothing to confuse it with."""
    rows: list[tuple[str, float, str, str | None, str | None]] = [
        ("u", 1, "page_visit", None, "a"),
        ("u", 31, "signup", None, "a"),
    ]
    known = period_of(rows, NO_MATTER)
    queries = advertiser_queries(
        known, data_of(known.until(instant(30))), instant(30), settings=SETTINGS, maximum=10, index_size=10
    )
    lists = {"popularity": baseline_lists(queries, 10.0, 100)["popularity"]}
    figures = measure_advertisers(AdvertiserComparison(queries, lists, 1, 100), NAMES, [10, 100], samples=5, seed=0)
    assert figures.metrics[Name.popularity].recall == {1: 1.0}
    assert list(figures.intervals["popularity"]) == [1]

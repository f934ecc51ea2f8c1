"""What is known of an advertiser at an instant, and nothing of what comes after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from ml.examples.advertiser_period import (
    AdvertiserPeriod,
    advertiser_data,
    advertiser_examples,
)
from ml.examples.period import TrainingPeriod
from ml.features.hashing import bucket
from tests.ml.examples.test_leakage import altered_future, assert_equal, exactly_at_the_cut, without_future
from tests.ml.shops import SETTINGS, data_of
from tests.ml.worlds import (
    EVENT_NAMES,
    instant,
)

CUT = 60.0  # day


def test_the_profile_of_an_advertiser_by_hand(shop: AdvertiserPeriod) -> None:
    """At day 10 advertiser a has items i1 and i2, from day 20 on i3, too."""
    data = data_of(shop)
    assert data.advertisers.advertiser_ids.to_list() == ["a", "b", "c"]
    early, late = data.advertisers.at(instant(10)), data.advertisers.at(instant(21))
    home, chairs, lamps = (bucket(node, 64, 0) for node in ("Home", "Home > Chairs", "Home > Lamps"))
    assert early.category.toarray()[0, [home, chairs, lamps]].tolist() == [1, 1, 0]
    np.testing.assert_allclose(late.category.toarray()[0, [home, chairs, lamps]], [1, 2 / 3, 1 / 3], rtol=1e-6)
    assert late.category.toarray()[[1, 2]].sum() == 0  # no category given, no item at all
    content = data.dataset.features.content  # [graph ; given]
    np.testing.assert_allclose(early.content[0], content[:2].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(late.content[0], content[:3].mean(axis=0), rtol=1e-6)
    assert not np.allclose(early.content[0], late.content[0])
    np.testing.assert_allclose(np.expm1(late.size[:, 0]), [3, 1, 0], rtol=1e-6)
    basis = data.dataset.basis
    log_prices = (np.log1p([10.0, 40.0]) - basis.price_mean) / basis.price_deviation
    np.testing.assert_allclose(late.price[0], [log_prices.mean(), log_prices.std(), 1], rtol=1e-5)
    assert late.price[2].tolist() == [0, 0, 0]


def test_statistics_count_every_event_of_an_advertiser_with_or_without_an_item(shop: AdvertiserPeriod) -> None:
    advertisers = data_of(shop).advertisers
    all_time = len(SETTINGS.features.statistics_windows_days)
    assert np.expm1(advertisers.at(instant(33.5)).statistics[:, all_time]).round().tolist() == [5, 1, 2]
    assert np.expm1(advertisers.at(instant(3)).statistics[:, all_time]).round().tolist() == [2, 0, 0]
    assert advertisers.known(instant(33)).tolist() == [0, 1]
    assert advertisers.known(instant(33.5)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("change", [without_future, altered_future, exactly_at_the_cut])
def test_all_that_is_prepared_ignores_the_future(
    planted: AdvertiserPeriod, change: Callable[[TrainingPeriod], TrainingPeriod]
) -> None:
    """Also what is known of an advertiser at an instant within the period."""
    changed = dataclasses.replace(planted, period=change(planted.period))
    before, after = (data_of(each.until(instant(CUT))) for each in (planted, changed))
    for day in (CUT / 2, CUT):
        one, other = before.advertisers.at(instant(day)), after.advertisers.at(instant(day))
        np.testing.assert_array_equal(one.category.toarray(), other.category.toarray())
        assert_equal(dataclasses.replace(one, category=None), dataclasses.replace(other, category=None), "profiles")
    assert_equal(
        advertiser_examples(planted.until(instant(CUT)), before, SETTINGS),
        advertiser_examples(changed.until(instant(CUT)), after, SETTINGS),
        "examples",
    )


def test_a_profile_within_the_period_ignores_what_comes_after_it(planted: AdvertiserPeriod) -> None:
    """Training reads profiles at cut-offs long before the period's end, under one basis."""
    whole = data_of(planted)
    cut = planted.until(instant(CUT))
    earlier = advertiser_data(cut, SETTINGS, EVENT_NAMES, whole.dataset.basis)
    one, other = whole.advertisers.at(instant(CUT)), earlier.advertisers.at(instant(CUT))
    np.testing.assert_array_equal(one.content, other.content)
    np.testing.assert_array_equal(one.size, other.size)
    np.testing.assert_array_equal(one.price, other.price)
    np.testing.assert_array_equal(one.statistics, other.statistics)
    np.testing.assert_array_equal(one.category.toarray(), other.category.toarray())

"""The co-engagement graph: its spectral embedding against a dense reference, and counts of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.features.co_engagement import (
    ITEM_EXPONENT,
    LONGEST_PERIOD,
    USER_EXPONENT,
    co_engagement,
    period_seconds,
    spectral_embedding,
)
from ml.features.event_log import EventLog
from ml.features.items import DAY
from tests.ml.worlds import Event, event_log, instant

CATALOGUE = ["a", "b", "c", "d", "e"]


def log_of(engaged: NDArray[np.bool_]) -> tuple[EventLog, list[str]]:
    """Each user engages once with each of their items."""
    item_ids = [f"i{item:02d}" for item in range(engaged.shape[1])]
    pairs = zip(*np.nonzero(engaged), strict=True)
    return event_log(
        [(f"u{user:02d}", float(item), "checkout", item_ids[item]) for user, item in pairs], item_ids
    ), item_ids


def with_periods(engaged: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The rows of the users, then of those with two items in a period, and their weights; item i is of day i.

    A period is two days, a twelfth of the log's.
    """
    rows, weights = [*engaged], [1.0] * len(engaged)
    period = np.array([instant(day) // (2 * DAY) for day in range(engaged.shape[1])])
    for user in engaged:
        within = [user & (period == each) for each in np.unique(period)]
        several = [row for row in within if row.sum() > 1]
        rows += several
        weights += [1 / max(len(several), 1) ** 0.5] * len(several)
    return np.array(rows), np.array(weights)


def dense_cosines(engaged: NDArray[np.bool_], dimensions: int) -> NDArray[np.float64]:
    """Cosines of the rows of V S, which do not depend on the signs that an SVD may choose."""
    engaged, weights = with_periods(engaged)
    users, items = np.maximum(engaged.sum(1), 1.0), np.maximum(engaged.sum(0), 1.0)
    scale = weights / users**USER_EXPONENT
    _, singular, right = np.linalg.svd(engaged * scale[:, None] / items**ITEM_EXPONENT)
    rows = right[:dimensions].T * singular[:dimensions]
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-9)
    return rows @ rows.T


def test_the_embedding_equals_a_dense_svd() -> None:
    engaged = np.random.default_rng(0).random((40, 25)) < 0.2
    engaged[:, 3] = False  # an item without an event
    log, item_ids = log_of(engaged)
    assert len(item_ids) == 25
    vectors = spectral_embedding(log, 25, 8, 0)
    np.testing.assert_allclose(vectors @ vectors.T, dense_cosines(engaged, 8), atol=1e-3)
    assert not vectors[3].any()


def test_items_of_one_period_are_nearer_than_items_years_apart() -> None:
    """Ten users buy a and b within days, and c and d a year later; as many others buy each of the four alone."""
    rows: list[Event] = [
        (f"u{user}", day, "checkout", item)
        for user in range(10)
        for day, item in ((1.0, "a"), (2.0, "b"), (400.0, "c"), (401.0, "d"))
    ]
    rows += [(f"{item}{user}", 1.0, "checkout", item) for user in range(10) for item in "abcd"]
    a, b, c, _, _ = spectral_embedding(event_log(rows, CATALOGUE), 5, 2, 0)  # the third value is one of two equal ones
    assert a @ b > a @ c + 0.1


@pytest.mark.parametrize(
    ("days", "seconds"),
    [([1.0, 13.0], DAY), ([1.0, 900.0], LONGEST_PERIOD), ([5.0, 5.0], LONGEST_PERIOD), ([], 30 * DAY)],
)
def test_a_period_is_a_month_or_a_twelfth_of_a_shorter_log(days: list[float], seconds: float) -> None:
    assert period_seconds(event_log([("u", day, "checkout", "a") for day in days], CATALOGUE)) == seconds


def test_repeated_events_count_once() -> None:
    rows: list[Event] = [
        (f"u{user}", day, "checkout", item) for user in range(4) for day, item in enumerate("abcd"[user:])
    ]
    once = spectral_embedding(event_log(rows, CATALOGUE), 5, 3, 0)
    often = spectral_embedding(event_log([*rows, *rows[:5], *rows[:2]], CATALOGUE), 5, 3, 0)
    np.testing.assert_allclose(once @ once.T, often @ often.T, atol=1e-5)


def test_items_outside_the_leading_dimensions_get_no_vector() -> None:
    """Two large groups take both dimensions; a pair that nothing links to them would be scaled noise."""
    engaged = np.zeros((41, 10), bool)
    engaged[:20, :4] = True
    engaged[20:40, 4:8] = True
    engaged[40, 8:] = True
    vectors = spectral_embedding(log_of(engaged)[0], 10, 2, 0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 8 + [0] * 2, atol=1e-5)


@pytest.mark.parametrize("rows", [[], [("u", 1.0, "checkout", "a")], [("u", 1.0, "signup", None)]])
def test_a_log_that_says_nothing_gives_zero_rows(rows: list[Event]) -> None:
    vectors = spectral_embedding(event_log(rows, CATALOGUE), 5, 3, 0)
    assert vectors.shape == (5, 3)
    assert not vectors.any()


def test_fewer_items_than_dimensions_fill_up_with_zeros() -> None:
    rows: list[Event] = [
        (f"u{user}", day, "checkout", item) for user in range(4) for day, item in enumerate("abc"[user % 2 :])
    ]
    vectors = spectral_embedding(event_log(rows, ["a", "b", "c"]), 3, 6, 0)
    assert vectors.shape == (3, 6)
    assert not vectors[:, 2:].any()


def test_pairs_are_counted_within_a_user_and_a_window_only() -> None:
    rows: list[Event] = [("u", day, "page_visit", item) for day, item in enumerate(["a", "b", "b", None, "c", "zzz"])]
    rows += [("w", day, "page_visit", item) for day, item in enumerate(["c", "a"])]
    counts = co_engagement(event_log(rows, CATALOGUE), 5, window=3).toarray()
    # u: a-b twice (1 and 2 apart), b-c twice (3 and 2 apart), a-c is 4 apart; w: c-a once; none across users.
    expected = np.zeros((5, 5))
    expected[0, 1], expected[1, 2], expected[0, 2] = 2, 2, 1
    np.testing.assert_array_equal(counts, expected + expected.T)

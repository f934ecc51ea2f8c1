"""The items of predicted advertisers: by hand, and equal to a slow rule."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.retrieval.advertiser_items import best_of_advertisers

FIT = np.array([0.5, 0.9, 0.9, 0.1, 0.7, 0.6], np.float32)  # of the items a1 a2 a3, b1, c1 c2
OWNED = [np.array([0, 1, 2]), np.array([3]), np.array([4, 5])]


def fits(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return FIT[rows]


@pytest.mark.parametrize(
    ("quota", "wanted", "expected"),
    [
        (3, 9, [1, 2, 4, 5, 0, 3]),  # of equal fits the lower row first
        (1, 9, [1, 4, 3]),  # the best one of each advertiser
        (2, 3, [1, 2, 4]),
        (2, 0, []),
    ],
)
def test_the_best_items_come_first_and_an_advertiser_keeps_its_quota(
    quota: int, wanted: int, expected: list[int]
) -> None:
    rows, scores = best_of_advertisers(OWNED, fits, quota=quota, wanted=wanted)
    assert rows.tolist() == expected
    assert scores.tolist() == FIT[expected].tolist()


def test_without_an_item_there_is_nothing() -> None:
    for owned in ([], [np.zeros(0, np.int64)]):
        rows, scores = best_of_advertisers(owned, fits, quota=3, wanted=5)
        assert len(rows) == len(scores) == 0


def test_equal_to_going_through_the_items_one_by_one() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        scores = random.integers(0, 6, 40).astype(np.float32)
        owner = random.integers(0, 7, 40)
        kept: list[int] = []
        for row in sorted(range(40), key=lambda row: (-scores[row], row)):
            if sum(owner[other] == owner[row] for other in kept) < 2:
                kept.append(row)
        owned = [np.flatnonzero(owner == advertiser) for advertiser in random.permutation(7)]
        rows, _ = best_of_advertisers(owned, scores.__getitem__, quota=2, wanted=10)
        assert rows.tolist() == kept[:10]
        allowed = random.random(40) < 0.5
        among, _ = best_of_advertisers(owned, scores.__getitem__, quota=2, wanted=10, allowed=allowed)
        rest, _ = best_of_advertisers([each[allowed[each]] for each in owned], scores.__getitem__, quota=2, wanted=10)
        assert among.tolist() == rest.tolist()

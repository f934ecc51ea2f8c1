"""Offsets by exposure: who stands in many lists scores less, everybody by the same rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.evaluation.metrics import share_for_90_percent
from ml.retrieval.exposure import LEAST, LENGTH, exposure_offsets
from ml.retrieval.lists import search


def a_few_popular(seed: int, users: int = 200, items: int = 1_000) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tastes in eight dimensions, and a ninth in which every user likes the same tenth of the items."""
    random = np.random.default_rng(seed)
    tastes, traits = (random.standard_normal((rows, 9)).astype(np.float32) for rows in (users, items))
    tastes[:, 8], traits[:, 8] = 1, 0
    traits[: items // 10, 8] = 2
    return tastes, traits


def listed(users: NDArray[np.float32], items: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.int64]:
    one = np.ones(len(users), np.float32)
    return search(np.column_stack([users, one]), np.column_stack([items, offsets]), LENGTH).items


@pytest.mark.parametrize("seed", range(3))
def test_lists_of_other_users_spread_too(seed: int) -> None:
    users, items = a_few_popular(seed)
    others, _ = a_few_popular(seed + 100)
    spread = [
        share_for_90_percent(listed(others, items, exposure_offsets(users, items, strength)), len(items))
        for strength in (0.0, 0.4, 1.0)
    ]
    assert spread[0] * 1.05 < spread[1]
    assert spread[1] * 1.05 < spread[2]


def test_the_offset_is_the_one_of_the_exposure_that_it_leads_to() -> None:
    users, items = a_few_popular(0)
    offsets = exposure_offsets(users, items, 0.2)
    slots = np.bincount(listed(users, items, offsets).ravel(), minlength=len(items))
    exposure = slots / slots.mean()
    expected = -0.2 * np.log1p(exposure / LEAST)
    shown = exposure > 1
    np.testing.assert_allclose(offsets[shown], expected[shown], atol=0.1)
    assert (offsets <= 0).all()


def test_an_item_that_no_list_reaches_loses_nothing() -> None:
    users, items = a_few_popular(0)
    items[-1] = -100 * users.mean(axis=0)
    assert exposure_offsets(users, items, 0.5)[-1] == 0


@given(users=st.integers(0, 3), items=st.integers(0, 3), strength=st.sampled_from([0.0, 0.3]))
def test_few_users_and_few_items_are_no_error(users: int, items: int, strength: float) -> None:
    random = np.random.default_rng(0)
    found = exposure_offsets(
        random.standard_normal((users, 4)).astype(np.float32),
        random.standard_normal((items, 4)).astype(np.float32),
        strength,
    )
    assert found.shape == (items,)
    # Every item is in every list: all lose the same, and no order changes.
    assert not items or np.ptp(found) == 0

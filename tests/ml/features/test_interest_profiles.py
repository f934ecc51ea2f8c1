"""What an interest looks like to the model."""

from __future__ import annotations

import numpy as np
import polars as pl

from ml.features.hashing import bucket
from ml.features.interest_profiles import InterestProfiles, item_interests
from ml.features.items import CATEGORY_LEVELS, ItemFeatures

BUCKETS = 1000
CONTENT = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)


def catalogue(paths: list[str | None], stated: list[list[str] | None]) -> pl.DataFrame:
    given = [None if each is None else [{"interest": name, "confidence": 1.0} for name in each] for each in stated]
    kind = pl.List(pl.Struct({"interest": pl.String, "confidence": pl.Float64}))
    return pl.DataFrame(
        {"category_path": pl.Series(paths, dtype=pl.String), "stated_interests": pl.Series(given, dtype=kind)}
    )


FURNITURE = catalogue(["Home > Chair", "Home > Chair", "Home > Lamp", None], [None, None, ["reading"], None])


def profiles() -> InterestProfiles:
    count = len(CONTENT)
    features = ItemFeatures(
        item_ids=pl.Series([str(number) for number in range(count)]),
        content=CONTENT,
        cold_content=CONTENT,
        category=np.zeros((count, CATEGORY_LEVELS), np.int64),
        interests=np.zeros((count, 4), np.int64),
        confidence=np.zeros((count, 4), np.float32),
        advertiser=np.zeros((count, 1), np.int64),
        price=np.zeros((count, 2), np.float32),
        listed_from=np.zeros(count),
    )
    return InterestProfiles.of(FURNITURE, features, BUCKETS)


def test_what_an_item_states_takes_the_place_of_its_categories() -> None:
    pairs = set(item_interests(FURNITURE).rows())
    assert pairs == {(0, "Home"), (0, "Home > Chair"), (1, "Home"), (1, "Home > Chair"), (2, "reading")}


def test_an_interest_is_the_middle_of_its_items() -> None:
    content, category = profiles().of_mixture({"Home > Chair": 0.3})
    np.testing.assert_allclose(content, np.array([1, 1, 0]) / np.sqrt(2), atol=1e-6)
    assert category[:2].tolist() == [bucket("Home", BUCKETS, 0), bucket("Home > Chair", BUCKETS, 0)]
    assert not category[2:].any()


def test_several_are_mixed_by_weight_and_the_strongest_gives_the_category() -> None:
    content, category = profiles().of_mixture({"Home": 0.4, "reading": 0.8, "unheard of": 1.0})
    expected = 0.4 * np.array([1, 1, 0]) / np.sqrt(2) + 0.8 * np.array([0, 0, 1])
    np.testing.assert_allclose(content, expected / np.linalg.norm(expected), atol=1e-6)
    assert not category.any()  # "reading" is no path


def test_nothing_known_is_nothing_shown() -> None:
    content, category = profiles().of_mixture({"unheard of": 1.0})
    assert not content.any()
    assert not category.any()

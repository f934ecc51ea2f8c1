"""Buckets are stable for ever: deployed embeddings are rows of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.features.hashing import NONE, bucket, hash_column


@pytest.mark.parametrize(
    ("value", "salt", "expected"),
    [("adidas", 0, 3615), ("adidas", 1, 1359), ("Home > Furniture", 0, 2238), ("", 0, 412)],
)
def test_buckets_never_change(value: str, salt: int, expected: int) -> None:
    """Frozen when adseq 0.1 was made; another value here makes every stored model wrong."""
    assert bucket(value, 4096, salt) == expected


def test_values_spread_over_all_buckets_but_the_one_of_missing_values() -> None:
    found = {bucket(str(number), 16, 0) for number in range(1000)}
    assert found == set(range(1, 16))


def test_a_column_hashes_row_by_row_and_null_gives_the_missing_bucket() -> None:
    values = pl.Series(["b", None, "a", "b", ""], dtype=pl.String)
    buckets = hash_column(values, 64, hashes=2)
    expected = [[NONE, NONE] if value is None else [bucket(value, 64, salt) for salt in (0, 1)] for value in values]
    assert buckets.tolist() == expected


def test_the_hashes_are_independent() -> None:
    """Two values that share a bucket under one hash are told apart by the other, as a rule."""
    buckets = hash_column(pl.Series([str(number) for number in range(2000)]), 32, hashes=2)
    alike = buckets[:, :1] == buckets[0, 0]
    among = buckets[alike[:, 0], 1]
    assert np.bincount(among, minlength=32).max() < 0.15 * len(among)


def test_columns_without_values() -> None:
    assert hash_column(pl.Series([None, None], dtype=pl.String), 8).tolist() == [[NONE], [NONE]]
    assert hash_column(pl.Series([], dtype=pl.String), 8, hashes=3).shape == (0, 3)

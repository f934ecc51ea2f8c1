"""Every user is in exactly one bucket, whatever the user's key and the number of buckets."""

from __future__ import annotations

from itertools import pairwise

import duckdb
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from warehouse.identity import UserKeys
from warehouse.user_buckets import MAXIMUM_BUCKETS, user_buckets


@given(keys=st.lists(st.text(), max_size=20), number=st.integers(-1, 200))
def test_a_user_is_in_one_bucket_in_polars_and_in_sql(keys: list[str], number: int) -> None:
    users, buckets = pl.DataFrame({"user_id": keys}, schema={"user_id": pl.String}), user_buckets(number)
    held = [users.filter(bucket.holds()) for bucket in buckets]
    assert sorted(pl.concat(held)["user_id"]) == sorted(keys)
    for bucket, expected in zip(buckets[:5], held, strict=False):
        found = duckdb.sql(f"SELECT user_id FROM users WHERE {bucket.sql()}").fetchall()
        assert sorted(key for (key,) in found) == sorted(expected["user_id"])


def test_buckets_ascend_so_that_tables_stay_in_the_order_of_their_users() -> None:
    for number in (1, 2, 7, 64, 4096):
        buckets = user_buckets(number)
        assert len(buckets) == number
        assert [bucket.first for bucket in buckets[1:]] == [bucket.end for bucket in buckets[:-1]]
        assert all(first.first < second.first for first, second in pairwise(buckets))
    assert len(user_buckets(MAXIMUM_BUCKETS + 1)) == MAXIMUM_BUCKETS


def test_buckets_of_keys_are_about_equal() -> None:
    keys = UserKeys(b"secret")
    users = pl.DataFrame({"user_id": [keys.key(str(number)) for number in range(20_000)]})
    for number in (3, 10, 40):
        sizes = [len(users.filter(bucket.holds())) for bucket in user_buckets(number)]
        assert max(sizes) < 1.3 * len(users) / number
        assert min(sizes) > 0.7 * len(users) / number

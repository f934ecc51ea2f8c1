"""Buckets of users, so that a stage is cut into parts that run anywhere and in any order.

The key of a user is a hash (``warehouse.identity``), so equal ranges of keys hold about as many users. A bucket is such
a range: any number of buckets fits every home, and a home is never dealt out anew. Tables are written in the order of
their users, and the statistics of a Parquet file say which row groups a range lies in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

_ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"  # of keys, in the order of their bytes
MAXIMUM_BUCKETS = len(_ALPHABET) ** 2


@dataclass(frozen=True)
class UserBucket:
    """The users with ``first <= user_id < end``; ``end`` None: no bound. Texts are compared by their bytes."""

    first: str
    end: str | None

    def holds(self) -> pl.Expr:
        """Return whether a row's ``user_id`` is in the bucket."""
        key = pl.col("user_id")
        above = key >= pl.lit(self.first)
        return above if self.end is None else above & (key < pl.lit(self.end))

    def sql(self, column: str = "user_id") -> str:
        """Return whether a row is in the bucket, in SQL; the bounds are characters of keys."""
        above = f"{column} >= '{self.first}'"
        return above if self.end is None else f"{above} AND {column} < '{self.end}'"


EVERYONE = UserBucket("", None)


def user_buckets(number: int) -> list[UserBucket]:
    """Return about equal buckets, ascending; at least one and at most ``MAXIMUM_BUCKETS``.

    Every user is in exactly one of them.

    >>> [(bucket.first, bucket.end) for bucket in user_buckets(2)]
    [('', 'V-'), ('V-', None)]
    """
    number = min(max(number, 1), MAXIMUM_BUCKETS)
    bounds = [_prefix(MAXIMUM_BUCKETS * each // number) for each in range(1, number)]
    return [UserBucket(first, end) for first, end in zip(["", *bounds], [*bounds, None], strict=True)]


def bucket_numbers(buckets: Sequence[UserBucket]) -> pl.Expr:
    """Return the number of the bucket that a row's ``user_id``, a key, is in. ``buckets`` are all buckets, ascending.

    >>> keys = pl.Series("user_id", ["V-a0b1c2d3e4", "Uza0b1c2d3e4"])
    >>> keys.to_frame().select(bucket_numbers(user_buckets(2))).to_series().to_list()
    [1, 0]
    """
    firsts = [bucket.first for bucket in buckets]
    prefixes = [_prefix(number) for number in range(MAXIMUM_BUCKETS)]
    numbers = [bisect_right(firsts, prefix) - 1 for prefix in prefixes]
    return pl.col("user_id").str.head(len(prefixes[0])).replace_strict(prefixes, numbers, return_dtype=pl.Int32)


def _prefix(number: int) -> str:
    high, low = divmod(number, len(_ALPHABET))
    return _ALPHABET[high] + _ALPHABET[low]

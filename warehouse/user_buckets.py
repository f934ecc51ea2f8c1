"""Buckets of users, so that a stage is cut into parts that run anywhere and in any order.

The key of a user is a hash (``warehouse.identity``), so equal ranges of keys hold about as many users. A bucket is such
a range: any number of buckets fits every home, and a home is never dealt out anew. Tables are written in the order of
their users, and the statistics of a Parquet file say which row groups a range lies in.
"""

from __future__ import annotations

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


def user_buckets(number: int) -> list[UserBucket]:
    """Return about equal buckets, ascending; at least one and at most ``MAXIMUM_BUCKETS``.

    Every user is in exactly one of them.

    >>> [(bucket.first, bucket.end) for bucket in user_buckets(2)]
    [('', 'V-'), ('V-', None)]
    """
    number = min(max(number, 1), MAXIMUM_BUCKETS)
    bounds = [_prefix(MAXIMUM_BUCKETS * each // number) for each in range(1, number)]
    return [UserBucket(first, end) for first, end in zip(["", *bounds], [*bounds, None], strict=True)]


def _prefix(number: int) -> str:
    high, low = divmod(number, len(_ALPHABET))
    return _ALPHABET[high] + _ALPHABET[low]

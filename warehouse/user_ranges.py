"""Ranges of users, so that a table of any size is read some users at a time.

The key of a user is a hash, so equal ranges of sorted keys have about as many events each. Tables are written in the
order of their users, and the statistics of a Parquet file say which row groups a range lies in.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

USERS_AT_ONCE = 20_000


def within(users: pl.Series) -> pl.Expr:
    """Return whether a row's ``user_id`` is in the range of ``users``, which are sorted."""
    return (pl.col("user_id") >= pl.lit(users[0])) & (pl.col("user_id") <= pl.lit(users[-1]))


def by_range(rows: pl.LazyFrame, users_at_once: int = USERS_AT_ONCE) -> Iterator[pl.LazyFrame]:
    """Yield the rows of a table range by range of ``user_id``, ascending; a range has ``users_at_once`` users."""
    users = rows.select("user_id").unique().sort("user_id").collect()["user_id"]
    for begin in range(0, len(users), users_at_once):
        yield rows.filter(within(users.slice(begin, users_at_once)))

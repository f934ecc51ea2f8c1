"""Stable hashing of strings into embedding buckets: no vocabulary to keep, and a new value works at once."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from settings import UNKNOWN_ADVERTISER

NONE = 0  # the bucket of a missing value; real values never land in it


def bucket(value: str, buckets: int, salt: int) -> int:
    """Return the bucket of one value in 1..buckets-1, the same on every machine and in every version.

    >>> bucket("Acme", buckets=1000, salt=0), bucket("Acme", buckets=1000, salt=1)
    (64, 686)
    """
    digest = blake2b(value.encode(), digest_size=8, salt=salt.to_bytes(8, "little")).digest()
    return 1 + int.from_bytes(digest, "little") % (buckets - 1)


def hash_column(values: pl.Series, buckets: int, hashes: int = 1) -> NDArray[np.int64]:
    """Return the buckets [rows, hashes] of a string column under ``hashes`` independent hashes; null gives ``NONE``.

    >>> hash_column(pl.Series(["Acme", None]), buckets=1000, hashes=2).tolist()
    [[64, 686], [0, 0]]
    """
    unique = values.drop_nulls().unique()
    table = pl.DataFrame({"value": unique}, schema={"value": pl.String})
    for salt in range(hashes):
        found = [bucket(value, buckets, salt) for value in unique]
        table = table.with_columns(pl.Series(f"hash_{salt}", found, dtype=pl.Int64))
    joined = values.to_frame("value").join(table, on="value", how="left", maintain_order="left")
    return joined.drop("value").fill_null(NONE).to_numpy().reshape(len(values), hashes)


def known_advertisers(ids: pl.Series) -> pl.Series:
    """Replace ``UNKNOWN_ADVERTISER`` by null: two items of unknown advertisers need not have the same advertiser.

    >>> known_advertisers(pl.Series(["Acme", "unknown"])).to_list()
    ['Acme', None]
    """
    return ids.set(ids == UNKNOWN_ADVERTISER, None)

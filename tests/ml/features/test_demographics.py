"""The buckets of a person's age, gender and country: of one who asks as of all whom a model has learnt from."""

from __future__ import annotations

import polars as pl

from ml.features.dataset import demographic_buckets, demographic_buckets_of


def test_one_person_has_the_buckets_of_a_row_of_many() -> None:
    people = pl.DataFrame(
        {
            "user_id": ["a", "b", "c", "d"],
            "age": pl.Series([0, 29, 130, None], dtype=pl.Int32),
            "gender": ["female", None, "", "male"],
            "country": [None, "DE", "US", "ü"],
        }
    )
    found = [demographic_buckets_of(*row).tolist() for row in people.select("age", "gender", "country").rows()]
    assert found == demographic_buckets(people, people["user_id"]).tolist()
    assert len({tuple(row) for row in found}) == len(found)

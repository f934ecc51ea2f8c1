"""Who is asked on a day, and how the served model and popularity are measured on them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from ml.evaluation.daily_recall import measure_day, recent_from, who_is_asked
from ml.examples.pairs import LabelRule

PAIRS = {"user_id": pl.String(), "item_id": pl.String()}


def pairs(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def test_a_conversion_of_an_old_item_counts_where_repeats_count() -> None:
    converted, history = pairs(("ann", "i1"), ("ann", "i2"), ("bob", "i1")), pairs(("bob", "i1"))
    asked = who_is_asked(converted, history, maximum_users=9, seed=0)
    assert (asked.users.to_list(), len(asked.positives)) == (["ann"], 2)
    asked = who_is_asked(converted, None, maximum_users=9, seed=0)
    assert (asked.users.to_list(), len(asked.positives)) == (["ann", "bob"], 3)
    asked = who_is_asked(converted, None, maximum_users=1, seed=0)
    assert asked.positives["user_id"].unique().to_list() == asked.users.to_list()
    assert len(asked.users) == 1


def test_lists_leave_out_the_history() -> None:
    """Ann's embedding is that of i0, which she knows; i2 comes next, which she buys. Popular is i1."""
    asked = who_is_asked(pairs(("ann", "i2")), pairs(("ann", "i0")), maximum_users=9, seed=0)
    engaged = pl.DataFrame({"item_id": ["i0", "i1", "gone"], "events": [1, 4, 9], "recent": [0, 4, 9]})
    items = np.array([[1, 0], [0, 1], [0.9, 0.1]], np.float32)
    found = measure_day(
        asked,
        pairs(("ann", "i0"), ("bob", "i2")),
        engaged,
        user_embeddings=items[:1],
        item_ids=pl.Series(["i0", "i1", "i2"]),
        item_embeddings=items,
        ks=[1, 2],
    )
    recall = {(model, metric): value for model, metric, value in found.select("model", "metric", "value").rows()}
    assert recall["contextual", "recall@1"] == 1
    assert (recall["recent_popularity", "recall@1"], recall["recent_popularity", "recall@2"]) == (0, 1)


@pytest.mark.parametrize(("window_days", "expected"), [(7, 22), (90, 1)])
def test_recent_is_a_window_of_the_label_or_four_weeks(window_days: int, expected: int) -> None:
    rule = LabelRule(("checkout",), window_days=window_days, repeats_count=False, weights={})
    assert recent_from(rule, datetime(2026, 1, 29, tzinfo=UTC)).day == expected

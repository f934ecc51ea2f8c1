"""Known answers for the drift of contexts."""

from __future__ import annotations

import polars as pl
import pytest

from assets.steps.context_drift import compare

ITEMS = pl.DataFrame(
    {
        "item_id": ["sofa", "lamp", "tent", "bare"],
        "category": ["home > seats", "home>lights", "sport > camping", None],
    }
)
LEARNT = pl.DataFrame(  # three of four subjects are of the home; one of two pairs with categories is in one category
    {
        "event_name": ["checkout", "checkout", None, "checkout"],
        "subject_item_id": ["sofa", "sofa", "lamp", "tent"],
        "item_id": ["sofa", "bare", "tent", "bare"],
    }
)
NO_REQUEST = pl.DataFrame(schema={"request_id": pl.String(), "subject_item_id": pl.String(), "item_id": pl.String()})


def shown(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=NO_REQUEST.schema, orient="row")


def test_a_request_counts_once_and_each_shown_item_is_a_pair() -> None:
    asked = shown(("r1", "tent", "tent"), ("r1", "tent", "sofa"), ("r2", "sofa", "sofa"), ("r3", "gone", "sofa"))
    found = compare(LEARNT, asked, ITEMS, served_by="item-1")
    assert (found.examples, found.requests, found.learnt_from) == (4, 3, "synthetic contexts")
    assert found.categories.rows() == [
        ("home", pytest.approx(3 / 4), pytest.approx(1 / 3)),
        ("unknown", 0, pytest.approx(1 / 3)),
        ("sport", pytest.approx(1 / 4), pytest.approx(1 / 3)),
    ]
    assert found.figures == pytest.approx(
        {
            "category_shift": 3 / 4 - 1 / 3,
            "same_category_learnt": 1 / 2,
            "same_category_asked": 2 / 3,
            "unknown_subjects": 1 / 3,
        }
    )


def test_the_same_contexts_have_not_drifted() -> None:
    same = LEARNT.with_columns(request_id=pl.int_range(4).cast(pl.String))
    found = compare(LEARNT, same, ITEMS, served_by="item-1")
    assert found.category_shift == 0
    assert found.same_category_asked == found.same_category_learnt


@pytest.mark.parametrize(("learnt", "asked"), [(LEARNT, NO_REQUEST), (LEARNT.clear(), shown(("r1", "tent", "sofa")))])
def test_without_requests_or_contexts_nothing_is_compared(learnt: pl.DataFrame, asked: pl.DataFrame) -> None:
    found = compare(learnt, asked, ITEMS, served_by="item-1")
    assert found.category_shift is None
    assert found.categories.is_empty()
    assert found.learnt_from == ("synthetic contexts" if len(learnt) else "nothing")


def test_shown_ads_are_contexts_of_the_log() -> None:
    logged = LEARNT.with_columns(event_name=pl.lit(None, pl.String))
    assert compare(logged, NO_REQUEST, ITEMS, served_by="item-1").learnt_from == "logged requests"

"""Words to interests, whatever the catalogue has and has not."""

from __future__ import annotations

import polars as pl
import pytest

from ml.features.search_queries import InterestMatcher

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "title": pl.String,
    "category_path": pl.String,
    "stated_interests": pl.List(pl.Struct({"interest": pl.String, "confidence": pl.Float64})),
}


def matcher(*rows: tuple[str | None, str | None]) -> InterestMatcher | None:
    frame = pl.DataFrame(rows, schema={"title": pl.String, "category_path": pl.String}, orient="row")
    return InterestMatcher.of(frame.with_columns(stated_interests=pl.lit(None, SCHEMA["stated_interests"])))


FURNITURE = (
    ("Leather Armchair by Nord", "Home > Furniture > Armchair"),
    ("Oak Table", "Home > Furniture > Table"),
    ("Desk Lamp", "Home > Lighting > Lamp"),
    ("Red Running Shoe", "Sport > Shoes"),
)


@pytest.mark.parametrize(
    ("query", "interest"),
    [
        ("armchair", "Home > Furniture > Armchair"),
        ("Armchairs", "Home > Furniture > Armchair"),
        ("leather", "Home > Furniture > Armchair"),  # of a title
        ("lamp", "Home > Lighting > Lamp"),
        ("running shoes", "Sport > Shoes"),
    ],
)
def test_the_nearest_interest_comes_first(query: str, interest: str) -> None:
    of = matcher(*FURNITURE)
    assert of is not None
    found = of.interests(query)
    assert next(iter(found)) == interest
    assert all(0 < weight <= 1 for weight in found.values())


@pytest.mark.parametrize("query", ["qqqq", "12345", "§", "日本"])
def test_what_nothing_is_like_matches_nothing(query: str) -> None:
    of = matcher(*FURNITURE)
    assert of is not None
    assert of.interests(query) == {}


def test_a_catalogue_without_categories_has_no_interests() -> None:
    assert matcher(("Chair", None), (None, None)) is None
    assert matcher() is None


def test_categories_without_titles_are_known_by_name() -> None:
    of = matcher((None, "Home > Chair"), (None, "7"), ("Lamp", None))
    assert of is not None
    assert next(iter(of.interests("chair"))) == "Home > Chair"


def test_stated_interests_go_before_the_category() -> None:
    frame = pl.DataFrame(
        {
            "title": ["Chair"],
            "category_path": ["Home > Chair"],
            "stated_interests": [[{"interest": "cosy evenings", "confidence": 0.5}]],
        },
        schema=SCHEMA,
    )
    of = InterestMatcher.of(frame)
    assert of is not None
    assert of.names == ["cosy evenings"]

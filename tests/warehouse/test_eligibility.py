"""Words of availability and codes of countries, and who may be shown what."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings import DataSettings
from warehouse.availability import SHOWN, Availability, is_shown, meaning, unknown_words
from warehouse.contracts import LandingTable
from warehouse.eligibility import Eligibility, can_be_had
from warehouse.landing import Landing
from warehouse.validate_landing import validate

WORDS = {
    Availability.in_stock: ["in stock", "InStock", "in_stock", "available", "OnlineOnly", "1", "true", "37", "4.0"],
    Availability.limited: ["LimitedAvailability", "limited availability"],
    Availability.in_store_only: ["InStoreOnly"],
    Availability.preorder: ["preorder", "PreOrder", "pre-order", "PreSale", "available for preorder"],
    Availability.backorder: ["backorder", "BackOrder", "available for order"],
    Availability.made_to_order: ["MadeToOrder"],
    Availability.out_of_stock: [
        "out of stock",
        "OutOfStock",
        "out_of_stock",
        "SoldOut",
        "unavailable",
        "0",
        "0.0",
        "no",
    ],
    Availability.reserved: ["Reserved", "pending"],
    Availability.discontinued: ["discontinued", "Discontinued"],
}
MEANT = [(word, meant) for meant, words in WORDS.items() for word in words]
DRESS = st.sampled_from(["{}", " {} ", "\t{}\n", "https://schema.org/{}", "http://schema.org/{}", "schema:{}", "{}."])


def meanings(words: list[str | None]) -> list[str | None]:
    return pl.select(meaning(pl.lit(pl.Series(words, dtype=pl.String)))).to_series().to_list()


@given(said=st.sampled_from(MEANT), dress=DRESS, case=st.sampled_from([str, str.upper, str.lower, str.title]))
@settings(max_examples=300)
def test_a_word_means_the_same_however_it_is_written(said: tuple[str, Availability], dress: str, case: type) -> None:
    word, meant = said
    if word[0].isdigit() and dress != " {} ":
        dress = "{}"  # a number has no address
    assert meanings([dress.format(case(word))]) == [meant]
    shown = pl.select(is_shown(pl.lit(pl.Series([dress.format(case(word))])))).item()
    assert shown == (meant in SHOWN)


def test_no_word_and_an_unknown_word_say_nothing_against_an_item() -> None:
    words = pl.Series("availability", ["auf Lager", None, "", " - ", "auf Lager", "ausverkauft"])
    assert meanings(words.to_list()) == ["unknown", None, None, None, "unknown", "unknown"]
    assert can_be_had(words).all()
    assert unknown_words(words) == {"auf Lager": 2, "ausverkauft": 1}


NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
COUNTRY = st.sampled_from(["DE", "de", " De ", "US", "FR"])


@given(
    items=st.lists(
        st.tuples(st.sampled_from([*MEANT, (None, None)]), st.none() | st.lists(COUNTRY, max_size=3)),
        min_size=1,
        max_size=12,
    ),
    country=st.none() | COUNTRY | st.sampled_from(["nowhere", "", " "]),
    unavailable=st.booleans(),
)
def test_the_mask_is_what_a_person_would_say(items: list, country: str | None, unavailable: bool) -> None:
    words = pl.Series([said[0] for said, _ in items], dtype=pl.String)
    places = pl.Series([ships for _, ships in items], dtype=pl.List(pl.String))
    ids = [str(row) for row in range(len(items))]
    stock = pl.DataFrame({"item_id": ids, "availability": words, "countries": places})
    mask = Eligibility.of(stock, None).mask(country, NOON, include_unavailable=unavailable)
    for (said, ships), allowed in zip(items, mask, strict=True):
        stocked = unavailable or said[1] is None or said[1] in SHOWN
        near = (
            not (country or "").strip()
            or ships is None
            or country.strip().upper() in [each.strip().upper() for each in ships]
        )
        assert allowed == (stocked and near)


def test_validate_names_the_words_that_nobody_knows(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    words = ["in stock", "auf Lager", "auf Lager", "OutOfStock", None]
    items = pl.DataFrame({"item_id": [f"i{row}" for row in range(5)], "availability": words})
    event = {"event_id": "e", "user_id": "u", "event_time": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "item_id": "i1"}
    landing.write(LandingTable.items, None, items)
    for table_day in (None, dt.date(2024, 1, 2)):
        landing.write(LandingTable.events, table_day, pl.DataFrame([event]).with_columns(event_name=pl.lit("checkout")))
    notes = [note for note in validate(landing, DataSettings()).notes if "availability" in note]
    assert len(notes) == 1
    assert "'auf Lager' (2 rows)" in notes[0]
    assert "OutOfStock" not in notes[0]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_catalogue_of_any_size_has_a_mask(count: int) -> None:
    schema = pl.Schema({"item_id": pl.String(), "availability": pl.String(), "countries": pl.List(pl.String())})
    items = pl.DataFrame({name: [None] * count for name in schema}, schema=schema)
    assert np.array_equal(Eligibility.of(items, None).mask("DE", NOON), np.ones(count, bool))

"""The text space: near words have near vectors, whatever the order of the titles, and the space survives its frame."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from ml.features.text import TextBasis

ADJECTIVES = ["Rustic", "Modern", "Soft", "Dark", "Playful"]
NOUNS = ["Garden Bench", "Tent", "Bookshelf", "Yarn", "Floor Lamp", "Dog Bed", "Mirror", "Wok"]
TITLES = pl.Series([f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS])
BASIS = TextBasis.of(TITLES, 16, seed=0)


def likeness(one: str, other: str) -> float:
    left, right = BASIS.vectors_of(pl.Series([one, other]))
    return float(left @ right)


def test_a_title_is_as_near_to_itself_as_can_be() -> None:
    vectors = BASIS.vectors_of(TITLES)
    assert vectors.shape == (40, BASIS.width)
    assert BASIS.width <= 16
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert likeness("Rustic Tent", "Rustic Tent") == pytest.approx(1, abs=1e-5)


def test_the_same_noun_with_another_adjective_is_nearer_than_another_noun() -> None:
    for noun, other in zip(NOUNS, NOUNS[1:] + NOUNS[:1], strict=True):
        same = likeness(f"Rustic {noun}", f"Modern {noun}")
        assert same > likeness(f"Rustic {noun}", f"Modern {other}") + 0.2
    assert (
        likeness("Rustic Tent", "rustic tent") > likeness("Rustic Tent", "dark tent") + 0.1
    )  # words count, no capitals


def test_a_query_is_near_the_titles_that_have_its_words_and_survives_a_misspelling() -> None:
    titles = BASIS.vectors_of(TITLES)
    for query in ("garden bench", "gardn bench", "benches for the garden"):
        best = np.argsort(-(titles @ BASIS.vectors_of(pl.Series([query]))[0]))[: len(ADJECTIVES)]
        assert {title.split(" ", 1)[1] for title in TITLES.gather(best)} == {"Garden Bench"}


def test_a_text_in_other_words_is_zero() -> None:
    """Some n-grams of these are in titles by chance: "be" of bench, "ro" of mirror."""
    assert not BASIS.vectors_of(pl.Series(["qwertzuiop", "begroyx 123"])).any()


def test_nothing_and_nothing_known_are_zero() -> None:
    vectors = BASIS.vectors_of(pl.Series([None, "", "  ", "日本", "Wok"], dtype=pl.String))
    assert np.linalg.norm(vectors, axis=1).round(5).tolist() == [0, 0, 0, 0, 1]
    assert BASIS.vectors_of(pl.Series([], dtype=pl.String)).shape == (0, BASIS.width)


@pytest.mark.parametrize("titles", [[], [None, None], [""]])
def test_without_a_title_there_is_no_space(titles: list[str | None]) -> None:
    none = TextBasis.of(pl.Series(titles, dtype=pl.String), 16, seed=0)
    assert none.width == 0
    assert none.vectors_of(pl.Series(["Wok", None])).shape == (2, 0)
    assert TextBasis.from_frame(none.to_frame()).width == 0


def test_the_order_and_the_repetition_of_titles_do_not_matter() -> None:
    shuffled = pl.concat([TITLES, TITLES.head(7), pl.Series([None], dtype=pl.String)]).shuffle(seed=3)
    again = TextBasis.of(shuffled, 16, seed=0)
    np.testing.assert_array_equal(again.buckets, BASIS.buckets)
    np.testing.assert_array_equal(again.projection, BASIS.projection)


def test_a_catalogue_of_few_titles_has_a_space_as_wide_as_the_titles_span() -> None:
    assert TextBasis.of(pl.Series(["Wok", "Tent"]), 16, seed=0).width == 2
    assert TextBasis.of(pl.Series(["Wok"]), 16, seed=0).width == 1


def test_the_frame_keeps_the_space_exactly() -> None:
    again = TextBasis.from_frame(BASIS.to_frame())
    np.testing.assert_array_equal(again.buckets, BASIS.buckets)
    np.testing.assert_array_equal(again.projection, BASIS.projection)
    np.testing.assert_array_equal(again.vectors_of(TITLES), BASIS.vectors_of(TITLES))


def test_a_text_has_the_same_vector_alone_and_among_others() -> None:
    alone = np.concatenate([BASIS.vectors_of(pl.Series([title])) for title in TITLES])
    np.testing.assert_allclose(alone, BASIS.vectors_of(TITLES), atol=1e-6)


def test_a_query_takes_well_below_a_millisecond() -> None:
    query, seconds = pl.Series(["rustic garden bench"]), []
    for _ in range(50):
        begin = time.perf_counter()
        BASIS.vectors_of(query)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.001

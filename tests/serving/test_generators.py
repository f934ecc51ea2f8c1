"""Blending, by hand."""

from __future__ import annotations

import pytest

from serving.contracts import Source
from serving.generators import Scored, blend


def rows(of: str, source: Source) -> list[Scored]:
    return [Scored(ord(letter), 0.0, source) for letter in of]


@pytest.mark.parametrize(
    ("first", "second", "share", "wanted", "expected"),
    [
        ("abcdefgh", "ABCD", 0.25, 8, "abcAdefB"),
        ("abcdefgh", "ABCD", 0.5, 6, "aAbBcC"),
        ("abcd", "ABCD", 0.0, 3, "abc"),
        ("abcd", "ABCD", 1.0, 3, "ABC"),
        ("ab", "AB", 0.25, 9, "abAB"),  # one ends, the other fills up
        ("", "AB", 0.25, 9, "AB"),
        ("abcd", "abXY", 0.5, 6, "abcXdY"),  # each item once; a turn goes to the next that is new
    ],
)
def test_blending(first: str, second: str, share: float, wanted: int, expected: str) -> None:
    blended = blend(rows(first, Source.item_neighbours), rows(second, Source.advertiser_lists), share, wanted)
    assert "".join(chr(each.row) for each in blended) == expected

"""Blending: by hand, equal to the rule of two lists, and near the shares at every place."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.blend import blend
from serving.generators import Scored


def rows(of: Sequence[int], source: str) -> list[Scored]:
    return [Scored(row, 0.0, source) for row in of]


def letters(of: str, source: str) -> list[Scored]:
    return rows([ord(letter) for letter in of], source)


@pytest.mark.parametrize(
    ("lists", "shares", "wanted", "expected"),
    [
        (["abcdefgh", "ABCD"], [0.75, 0.25], 8, "abcAdefB"),
        (["abcdefgh", "ABCD"], [0.5, 0.5], 6, "aAbBcC"),
        (["abcd", "ABCD"], [1.0, 0.0], 3, "abc"),
        (["abcd", "ABCD"], [0.0, 1.0], 3, "ABC"),
        (["ab", "AB"], [0.75, 0.25], 9, "abAB"),  # one ends, the other fills up
        (["", "AB"], [0.75, 0.25], 9, "AB"),
        (["abcd", "abXY"], [0.5, 0.5], 6, "abcXdY"),  # each item once; a turn goes to the next that is new
        (["abcdef", "ABC", "123"], [0.5, 0.25, 0.25], 8, "aAb1cBd2"),
        (["abcdef", "A", "123456"], [0.5, 0.25, 0.25], 9, "aAb1cde2f"),  # the first has the places of the second
        (["a", "ABCDEF", "123"], [0.5, 0.25, 0.25], 8, "aAB1CDE2"),  # the second has the places of the first
        (["abc"], [1.0], 5, "abc"),
    ],
)
def test_blending(lists: list[str], shares: list[float], wanted: int, expected: str) -> None:
    blended = blend([letters(each, str(at)) for at, each in enumerate(lists)], shares, wanted)
    assert "".join(chr(each.row) for each in blended) == expected


@st.composite
def blended_lists(draw: st.DrawFn, longest: int = 12) -> tuple[list[list[Scored]], list[float], int]:
    """Lists that may have items in common, their shares, and how many items are wanted."""
    lists = draw(st.lists(st.lists(st.integers(0, 30), max_size=longest, unique=True), min_size=1, max_size=6))
    shares = draw(shares_of(len(lists)))
    return [rows(each, str(at)) for at, each in enumerate(lists)], shares, draw(st.integers(0, 40))


def shares_of(lists: int) -> st.SearchStrategy[list[float]]:
    weights = st.lists(st.integers(1, 100), min_size=lists, max_size=lists)
    return weights.map(lambda found: [weight / sum(found) for weight in found])


@given(blended_lists())
def test_each_item_comes_once_in_the_order_of_its_list_until_all_lists_have_ended(
    drawn: tuple[list[list[Scored]], list[float], int],
) -> None:
    lists, shares, wanted = drawn
    blended = blend(lists, shares, wanted)
    found = [each.row for each in blended]
    everything = {each.row for of in lists for each in of}
    assert len(found) == len(set(found)) == min(wanted, len(everything))
    for of in lists:
        place = {each: at for at, each in enumerate(of)}
        own = [place[each] for each in blended if each in place]
        assert own == sorted(own)


@given(st.data(), st.integers(2, 12))
def test_while_no_list_ends_every_prefix_has_every_share_to_less_than_a_place(data: st.DataObject, many: int) -> None:
    shares, wanted = data.draw(shares_of(many)), 150
    blended = blend([rows(range(at * wanted, (at + 1) * wanted), str(at)) for at in range(many)], shares, wanted)
    taken = [0] * many
    for length, each in enumerate(blended, start=1):
        taken[int(each.source)] += 1
        # shares are counted in millionths
        assert all(abs(taken[at] - shares[at] * length) < 1 + length * many * 1e-6 for at in range(many))


def two_lists(first: list[Scored], second: list[Scored], share: Fraction, wanted: int) -> list[Scored]:
    """The rule of two lists: the second has a place when its share of the prefix is another whole place."""
    blended: list[Scored] = []
    taken: set[int] = set()
    queues, of_second = (iter(first), iter(second)), 0
    while len(blended) < wanted:
        turn = int(of_second + 1 <= share * (len(blended) + 1))
        found = next((each for each in queues[turn] if each.row not in taken), None)
        if found is None:
            found = next((each for each in queues[1 - turn] if each.row not in taken), None)
        if found is None:
            break
        taken.add(found.row)
        blended.append(found)
        of_second += turn
    return blended


LISTS = st.lists(st.integers(0, 60), max_size=50, unique=True)


@given(LISTS, LISTS, st.integers(0, 1000), st.integers(0, 80))
def test_two_lists_are_blended_by_the_rule_of_two_lists(
    first: list[int], second: list[int], thousandths: int, wanted: int
) -> None:
    lists = rows(first, "first"), rows(second, "second")
    share = thousandths / 1000
    assert blend(lists, [1 - share, share], wanted) == two_lists(*lists, Fraction(thousandths, 1000), wanted)

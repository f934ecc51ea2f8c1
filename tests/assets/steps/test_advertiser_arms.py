"""The blend of two lists of each request, by hand."""

from __future__ import annotations

from assets.steps.advertiser_arms import blended
from ml.retrieval.lists import RankedLists


def test_each_request_has_the_blend_of_its_two_lists() -> None:
    first = RankedLists.from_rows([[0, 1, 2, 3], [0, 1, 2, 3], []], depth=4)
    second = RankedLists.from_rows([[7, 8], [1, 9], [7]], depth=2)
    found = blended(first, second, 0.25)
    # A quarter of the places; an item that both have comes once, and the turn goes to the next; a list that is alone.
    assert found.items.tolist() == [[0, 1, 2, 7], [0, 1, 2, 9], [7, -1, -1, -1]]
    assert blended(first, second, 0.0).items[0].tolist() == [0, 1, 2, 3]

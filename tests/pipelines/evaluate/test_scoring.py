"""Scoring on a part of the catalogue, by hand."""

from __future__ import annotations

import numpy as np

from ml.retrieval.lists import Ragged, RankedLists
from pipelines.evaluate.scoring import within


def test_items_outside_a_catalogue_leave_the_lists_and_the_rest_moves_up() -> None:
    lists = RankedLists.from_rows([[0, 3, 1, 4], [1, 2]], depth=4)
    positives = Ragged.from_pairs([0, 0, 1, 1], [3, 4, 1, -1], 2)
    scored, wanted = within(lists, positives, np.array([True, False, True, False, True]), depth=2)
    assert scored.items.tolist() == [[0, 2], [1, -1]]  # rows of the part: 0, 2 and 4 are 0, 1 and 2 there
    assert wanted.offsets.tolist() == [0, 1, 1]
    assert wanted.items.tolist() == [2]
    assert np.isneginf(scored.scores[1, 1])

"""The trim between search and blend: the candidates of all generators, without the irrelevant ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml.relevance.pair_features import Traits
from serving.generators import Scored
from serving.relevance_scorer import Arm, Judged, RelevanceScorer
from warehouse.surfaces import Surface

SPARE = 2
"""Each generator is asked for so many times the places of an answer, so that others replace what the trim drops."""


@dataclass(frozen=True)
class Trim:
    """The relevance of a request: the scorer, the request's place, and its arm."""

    scorer: RelevanceScorer
    surface: Surface
    place: Traits
    arm: Arm

    def judge(self, lists: Sequence[Sequence[Scored]]) -> Judged:
        """Return the scores of the candidates of all lists, each once."""
        return self.scorer.judge(self.surface, self.place, _rows(lists))

    def kept(self, lists: Sequence[Sequence[Scored]], judged: Judged) -> list[list[Scored]]:
        """Return the lists in their order without the candidates that the trim drops; in the holdout all of them."""
        return without(lists, judged.irrelevant() if self.arm is Arm.production else set())


def irrelevant_of(trims: Sequence[Trim | None], lists: Sequence[Sequence[Sequence[Scored]]]) -> list[set[int]]:
    """Return the index rows that production drops of each of many requests, whose candidates are scored together.

    Args:
        trims: of one scorer, one a request; None trims nothing. lists: of each request's generators.
    """
    rows = [_rows(each) for each in lists]
    asked = [(trim, own) for trim, own in zip(trims, rows, strict=True) if trim is not None]
    if not asked:
        return [set() for _ in trims]
    places = [(trim.surface, trim.place) for trim, _ in asked]
    passes = iter(asked[0][0].scorer.passes(places, [own for _, own in asked]))
    return [
        set() if trim is None else {row for row, kept in zip(own, next(passes).tolist(), strict=True) if not kept}
        for trim, own in zip(trims, rows, strict=True)
    ]


def without(lists: Sequence[Sequence[Scored]], irrelevant: set[int]) -> list[list[Scored]]:
    """Return the lists in their order without some index rows."""
    return [[each for each in proposed if each.row not in irrelevant] for proposed in lists]


def _rows(lists: Sequence[Sequence[Scored]]) -> list[int]:
    """Return the index row of each candidate of the lists, once."""
    return list({each.row for proposed in lists for each in proposed})

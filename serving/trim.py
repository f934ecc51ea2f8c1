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
        return self.scorer.judge(self.surface, self.place, list({each.row for each in _all(lists)}))

    def kept(self, lists: Sequence[Sequence[Scored]], judged: Judged) -> list[list[Scored]]:
        """Return the lists in their order without the candidates that the trim drops; in the holdout all of them."""
        irrelevant = judged.irrelevant() if self.arm is Arm.production else set()
        return [[each for each in proposed if each.row not in irrelevant] for proposed in lists]


def _all(lists: Sequence[Sequence[Scored]]) -> list[Scored]:
    return [each for proposed in lists for each in proposed]

"""How often two raters of the world disagree: from the truth and the planted noise, without a label."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.contracts import MAXIMUM_LABEL, MINIMUM_LABEL
from warehouse.world.true_relevance import TrueRelevance


@dataclass(frozen=True)
class Disagreement:
    """Expected shares of pairs whose two labels are not equal, and differ by more than one point."""

    exact: float
    more_than_one: float


def planted_disagreement(landing_root: Path, pairs: pl.DataFrame, as_of: date) -> Disagreement:
    """Return the disagreement of two raters without a bias over pairs.

    Args:
        landing_root: a landing zone that ``write_world`` wrote.
        pairs: ``subject_item_id``, ``query`` and ``item_id``, at least one row; the mean is over these rows.
        as_of: the last day on which an item of the pairs can have appeared.

    Raises:
        FileNotFoundError: the landing zone holds no synthetic world.
        ValueError: an item or a query that the world does not have.
    """
    truth = TrueRelevance.of(landing_root, as_of)
    return disagreement(truth.of_candidates(pairs), truth.world.settings.rater_noise)


def disagreement(relevance: NDArray[np.float64], noise: float) -> Disagreement:
    """Return the disagreement of two raters of equal ``noise`` (points) over pairs of true relevance 0 to 1 [pairs].

    Half a point above label 3, a rater gives 3 as often as 4; label 1 is far below. Two such raters disagree half the
    time:

    >>> found = disagreement(np.array([0.625]), 0.05)
    >>> round(found.exact, 3), round(found.more_than_one, 3)
    (0.5, 0.0)
    """
    chance = label_probabilities(relevance, noise)
    points = np.arange(chance.shape[1])
    apart = np.abs(points[:, None] - points)
    both = np.einsum("pi,pj->ij", chance, chance) / len(chance)
    return Disagreement(float(both[apart > 0].sum()), float(both[apart > 1].sum()))


def label_probabilities(relevance: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """Return the probability of each label for each true relevance [pairs, labels].

    A rater rounds the truth on the scale of the labels, plus normal noise, to the nearest label.
    """
    from scipy.special import ndtr

    borders = np.arange(MINIMUM_LABEL, MAXIMUM_LABEL) + 0.5
    seen = MINIMUM_LABEL + (MAXIMUM_LABEL - MINIMUM_LABEL) * relevance
    below = ndtr((borders - seen[:, None]) / max(noise, 1e-12))
    edges = np.zeros((len(seen), 1)), np.ones((len(seen), 1))
    probabilities: NDArray[np.float64] = np.diff(np.concatenate([edges[0], below, edges[1]], axis=1), axis=1)
    return probabilities

"""What another policy's lists would have brought, estimated from the impression log of the policy that ran.

The logging policy proposed each item of a request with a known probability, the propensity. A listed item that was
proposed stands for ``1 / propensity`` listed items, its weight. Three estimates of the outcome of a list follow, in
clicks, conversions or any other reward of an item, as the mean over requests:

- ``inverse_propensity``: the sum of weight x reward of the listed items (D. G. Horvitz and D. J. Thompson, "A
  Generalization of Sampling Without Replacement From a Finite Universe", JASA 47, 1952). Unbiased where every listed
  item has a propensity above 0.
- ``self_normalised``: the mean reward by weight x the mean length of the lists (A. Swaminathan and T. Joachims, "The
  Self-Normalized Estimator for Counterfactual Learning", NIPS 2015). A list is a slate of items that are proposed
  independently, so the normaliser is the sum of the weights, whose expectation is the number of listed items.
- ``doubly_robust``: a model's expected rewards of all listed items + the sum of weight x (reward - expected reward)
  (M. Dudík, J. Langford and L. Li, "Doubly Robust Policy Evaluation and Learning", ICML 2011). Unbiased whatever the
  model says, and the surer the better the model is.

The assumption is that items do not interfere: the outcome of a proposed item does not depend on the other items of the
request. In an auction items compete for slots, so the estimates hold for lists that change a small part of what
competes. A request of which nothing was proposed leaves no row in the log, and is not in the mean.

Few matches, or a few that weigh as much as all others together, make an estimate worthless without showing it; so
there is none below an effective sample size (L. Kish, "Survey Sampling", 1965). Standard errors are of the linearised
estimate, summed over users ("sandwich"), because a user's requests resemble each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.intervals import NORMAL_95, Interval
from ml.features.cross_fit import deal_folds

MINIMUM_EFFECTIVE_SAMPLE_SIZE = 100.0


@dataclass(frozen=True)
class Listed:
    """The listed items of all requests, request by request, and how likely the logging policy proposed each.

    Attributes:
        user: [requests] number of the user; every request counts, of an empty list too.
        request: [listed] row of the item's request.
        propensity: [listed] probability that the logging policy proposed the item in the request; NaN where the policy
            did not propose the item.
    """

    user: NDArray[np.int64]
    request: NDArray[np.int64]
    propensity: NDArray[np.float64]

    def __post_init__(self) -> None:
        wrong = ~((self.propensity > 0) & (self.propensity <= 1)) & ~np.isnan(self.propensity)
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} propensities are not above 0 and at most 1, such as "
                f"{self.propensity[wrong][0]:g}: a propensity is the probability with which the logging policy "
                "proposed the item"
            )

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Return [listed] whether the logging policy proposed the item."""
        return ~np.isnan(self.propensity)

    @property
    def weight(self) -> NDArray[np.float64]:
        """Return [listed] 1 / propensity; 0 where the item was not proposed."""
        return np.where(self.matched, 1.0 / self.propensity, 0.0)

    def by_user(self, of_listed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return [users] the sum over the listed items of each user."""
        return np.bincount(self.user[self.request], of_listed, self._users).astype(np.float64)

    @property
    def requests_by_user(self) -> NDArray[np.float64]:
        """Return [users] number of requests."""
        return np.bincount(self.user, minlength=self._users).astype(np.float64)

    @property
    def _users(self) -> int:
        return int(self.user.max()) + 1 if len(self.user) else 0


@dataclass(frozen=True)
class Estimate:
    """The expected outcome of a list, as the mean over requests."""

    value: float
    standard_error: float

    @property
    def interval(self) -> Interval:
        """Return the estimate with its 95 % interval."""
        half = NORMAL_95 * self.standard_error
        return Interval(self.value, self.value - half, self.value + half)


@dataclass(frozen=True)
class Estimates:
    """The three estimates of one reward."""

    inverse_propensity: Estimate
    self_normalised: Estimate
    doubly_robust: Estimate


@dataclass(frozen=True)
class Overlap:
    """What lists have in common with a log.

    Attributes:
        effective_sample_size: (sum of weights)² / sum of squared weights, over the matched items.
        effective_users: the same over users, by the sum of the weights of each: a few users cannot stand for all.
        support: sum of weights over the number of listed items. Its expectation is the share of the listed items that
            the logging policy could have proposed at all; the other items count as worth nothing by
            ``inverse_propensity``, and as the mean item by ``self_normalised``.
    """

    effective_sample_size: float
    effective_users: float
    support: float

    @classmethod
    def of(cls, listed: Listed) -> Overlap:
        """Measure the overlap. Three matched items of weights 1, 1 and 2 are worth 16 / 6 items:

        >>> propensity = np.array([1.0, 1.0, 0.5, np.nan])
        >>> overlap = Overlap.of(Listed(np.array([0, 1]), np.array([0, 0, 1, 1]), propensity))
        >>> round(overlap.effective_sample_size, 2), overlap.effective_users, overlap.support
        (2.67, 2.0, 1.0)
        """
        weight, count = listed.weight, len(listed.request)
        support = float(weight.sum() / count) if count else float("nan")
        return cls(_effective(weight), _effective(listed.by_user(weight)), support)


@dataclass(frozen=True)
class Refused:
    """The log says too little about the lists for an estimate."""

    overlap: Overlap
    bound: float

    @property
    def reason(self) -> str:
        """Say what is missing, and what to do."""
        return (
            f"the effective sample size is {self.overlap.effective_sample_size:.1f} items of "
            f"{self.overlap.effective_users:.1f} users, and an estimate needs {self.bound:g} of each: log more "
            "requests, or let the logging policy propose the listed items more often"
        )


def inverse_propensity(listed: Listed, reward: NDArray[np.float64]) -> Estimate:
    """Return the sum of weight x reward of a request (Horvitz and Thompson 1952).

    Of the two listed items of one request, one was proposed with probability 1/2 and clicked:

    >>> listed = Listed(np.array([0]), np.array([0, 0]), np.array([0.5, np.nan]))
    >>> inverse_propensity(listed, np.array([1.0, 0.0])).value
    2.0

    Args:
        reward: [listed] outcome of the item; not read where the item was not proposed.
    """
    return _mean_of_requests(listed, listed.by_user(_weighted(listed, reward)))


def self_normalised(listed: Listed, reward: NDArray[np.float64]) -> Estimate:
    """Return the mean reward of an item, by weight, x the mean length of the lists (Swaminathan and Joachims 2015).

    The list of ``inverse_propensity`` again: every proposed item was clicked, so both listed items would be:

    >>> listed = Listed(np.array([0]), np.array([0, 0]), np.array([0.5, np.nan]))
    >>> self_normalised(listed, np.array([1.0, 0.0])).value
    2.0

    Args:
        reward: [listed] outcome of the item; not read where the item was not proposed.
    """
    rewards, weights = (listed.by_user(each) for each in (_weighted(listed, reward), listed.weight))
    lengths, requests = listed.by_user(np.ones(len(listed.request))), listed.requests_by_user
    with np.errstate(invalid="ignore", divide="ignore"):
        of_item, length = rewards.sum() / weights.sum(), lengths.sum() / requests.sum()
        influence = length * (rewards - of_item * weights) / weights.sum()
        influence += of_item * (lengths - length * requests) / requests.sum()
    return Estimate(float(of_item * length), _standard_error(influence))


def doubly_robust(listed: Listed, reward: NDArray[np.float64], expected: NDArray[np.float64]) -> Estimate:
    """Return the expected rewards of a list, corrected by what the log says of them (Dudík, Langford and Li 2011).

    The model expects half a click of each item, and the item that was proposed had one:

    >>> listed = Listed(np.array([0]), np.array([0, 0]), np.array([0.5, np.nan]))
    >>> doubly_robust(listed, np.array([1.0, 0.0]), np.array([0.5, 0.5])).value
    2.0

    Args:
        reward: [listed] outcome of the item; not read where the item was not proposed.
        expected: [listed] reward that a model expects of the item if it is proposed. The model may not have learnt from
            the request's own rewards.
    """
    return _mean_of_requests(listed, listed.by_user(expected + _weighted(listed, reward - expected)))


def estimate(
    listed: Listed,
    reward: NDArray[np.float64],
    expected: NDArray[np.float64],
    *,
    minimum: float = MINIMUM_EFFECTIVE_SAMPLE_SIZE,
) -> Estimates | Refused:
    """Return the three estimates, or the refusal where the effective sample size is below ``minimum``."""
    overlap = Overlap.of(listed)
    if min(overlap.effective_sample_size, overlap.effective_users) < minimum:
        return Refused(overlap, minimum)
    return Estimates(
        inverse_propensity(listed, reward), self_normalised(listed, reward), doubly_robust(listed, reward, expected)
    )


def mean_by_cell(
    listed: Listed, reward: NDArray[np.float64], cell: NDArray[np.int64], *, folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """Return [listed] the mean reward of the item's cell, by weight: the plainest model of ``doubly_robust``.

    Users are dealt into folds, and the means of a fold are of the users of the other folds. A cell without a matched
    item there has the mean of all cells; without any match the expected reward is 0.

    Args:
        cell: [listed] number of the cell, such as a bucket of positions or of scores.
    """
    fold = deal_folds(int(listed.user.max()) + 1 if len(listed.user) else 0, folds, seed)
    own = fold[listed.user[listed.request]]
    cells = int(cell.max()) + 1 if len(cell) else 0
    sums = [
        np.bincount(own * cells + cell, each, folds * cells).astype(np.float64).reshape(folds, cells)
        for each in (_weighted(listed, reward), listed.weight)
    ]
    rewards, weights = (each.sum(axis=0) - each if folds > 1 else each for each in sums)
    overall = _ratio(rewards.sum(axis=1), weights.sum(axis=1), np.zeros(folds))
    return _ratio(rewards, weights, np.broadcast_to(overall[:, None], rewards.shape))[own, cell]


def _weighted(listed: Listed, reward: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(listed.matched, listed.weight * reward, 0.0)


def _mean_of_requests(listed: Listed, by_user: NDArray[np.float64]) -> Estimate:
    """Return a sum over users as the mean over their requests."""
    requests = listed.requests_by_user
    with np.errstate(invalid="ignore", divide="ignore"):
        value = by_user.sum() / requests.sum()
        return Estimate(float(value), _standard_error((by_user - value * requests) / requests.sum()))


def _standard_error(influence: NDArray[np.float64]) -> float:
    """Return the standard error of an estimate from the influence of each user on the estimate, which sum up to 0."""
    users = len(influence)
    return float(np.sqrt(users / (users - 1) * np.square(influence).sum())) if users > 1 else float("nan")


def _effective(weight: NDArray[np.float64]) -> float:
    """Return the number of equal weights that would say as much; 0 without a weight.

    >>> _effective(np.array([2.0, 2.0, 0.0])), _effective(np.array([]))
    (2.0, 0.0)
    """
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def _ratio(
    above: NDArray[np.float64], below: NDArray[np.float64], otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``above / below``, or ``otherwise`` where nothing is below."""
    return np.divide(above, below, out=otherwise.astype(np.float64), where=below > 0)

"""The outcome of an experiment on the market: each arm's own candidates, and one arm against another.

Intervals are of a bootstrap over users, the same users for all arms: the arms share requests and luck, so what is hard
for both cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.intervals import NORMAL_95, Interval, percentile_interval
from ml.evaluation.model_names import WITHOUT_A_MODEL, ListArm, ModelName
from ml.evaluation.report_rows import ReportRow, Segment, over

Values = NDArray[np.float64]
COUNTS = (
    "retrieved",
    "ranked",
    "delivered",
    "only_own",
    "price_paid",
    "clicks",
    "conversions",
    "value",
    "delivered_relevance",
)
FIRST, SECOND = ModelName.contextual.value, ModelName.sequential.value
"""The arms whose ratios have names of their own: the model with the live context, and its predecessor."""
BESIDE_FIRST = (ListArm.with_contextual.value, ListArm.trimmed.value, ModelName.contextual_cross_attention.value)
"""The arms that are ``FIRST`` with one change: what the change adds is their ratios over ``FIRST``."""


@dataclass(frozen=True)
class Measured:
    """The sums of one arm, by user.

    Attributes:
        own: [users, counts] of the arm's own source. every: [users, counts] of all sources.
        relevance: [requests] mean relevance of the arm's own candidates. owner: [requests] row of the user, ascending
            by relevance.
    """

    own: Values
    every: Values
    relevance: Values
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, arm: str, rows: pl.DataFrame, users: pl.Series) -> Measured:
        """Return the sums of the rows of an arm; ``users``: all users of the experiment."""
        at = rows.join(users.alias("user_id").to_frame().with_row_index("row"), on="user_id")
        is_own = (at["source"] == arm).to_numpy()
        row, counts = at["row"].to_numpy().astype(np.int64), at.select(COUNTS).to_numpy().astype(np.float64)
        own, every = np.zeros((2, len(users), len(COUNTS)))
        np.add.at(own, row[is_own], counts[is_own])
        np.add.at(every, row, counts)
        proposed = at.filter(pl.Series(is_own))
        mean = (proposed["relevance"] / proposed["retrieved"]).to_numpy()
        order = np.argsort(mean, kind="stable")
        return cls(own, every, mean[order], proposed["row"].to_numpy().astype(np.int64)[order])

    def figures(self, weight: Values) -> dict[str, float]:
        """Return the figures of the arm when each user counts so often [users]."""
        own, every = (dict(zip(COUNTS, weight @ sums, strict=True)) for sums in (self.own, self.every))
        with np.errstate(divide="ignore", invalid="ignore"):
            figures = {
                "retrieved": own["retrieved"],
                "delivered": own["delivered"],
                "only_own": own["only_own"],
                "passed_trim": np.divide(own["ranked"], own["retrieved"]),
                "survival_rate": np.divide(own["delivered"], own["retrieved"]),
                "share_of_impressions": np.divide(own["delivered"], every["delivered"]),
                "median_true_relevance": self._median_relevance(weight),
                "click_rate": np.divide(own["clicks"], own["delivered"]),
                "cost_per_action": np.divide(own["price_paid"], own["conversions"]),
                "own_roas": np.divide(own["value"], own["price_paid"]),
                "roas": np.divide(every["value"], every["price_paid"]),
                "conversions": every["conversions"],
                "spend": every["price_paid"],
                "value": every["value"],
                "shown_relevance": np.divide(every["delivered_relevance"], every["delivered"]),
                "legacy_delivered": every["delivered"] - own["delivered"],
            }
        return {name: float(value) for name, value in figures.items()}

    def _median_relevance(self, weight: Values) -> float:
        """Return the median over requests of the mean relevance of the arm's candidates; NaN without a candidate."""
        cumulative = np.cumsum(weight[self.owner])
        if not len(cumulative) or not cumulative[-1]:
            return float("nan")
        return float(self.relevance[np.searchsorted(cumulative, cumulative[-1] / 2)])


def ratios(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Return the ratios of two arms' figures, and lifts, which are ratios less one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "delivered_ratio": np.divide(first["delivered"], second["delivered"]),
            "survival_ratio": np.divide(first["survival_rate"], second["survival_rate"]),
            "relevance_ratio": np.divide(first["median_true_relevance"], second["median_true_relevance"]),
            "shown_relevance_lift": np.divide(first["shown_relevance"], second["shown_relevance"]) - 1,
            "conversions_lift": np.divide(first["conversions"], second["conversions"]) - 1,
            "spend_lift": np.divide(first["spend"], second["spend"]) - 1,
        }
    return {name: float(value) for name, value in found.items()}


def roas_lift(first: Measured, second: Measured) -> Interval:
    """Return the return on ad spend of one arm over that of another, less one, over all sources.

    The interval is by the delta method on the logarithm: to first order a user changes it by the user's share of the
    value less the user's share of the spend, and the two arms' changes are subtracted for each user. Source: Deng,
    Knoblich and Lu, 2018, "Applying the delta method in metric analytics".
    """
    value, spend = COUNTS.index("value"), COUNTS.index("price_paid")
    totals = [(each.every[:, value].sum(), each.every[:, spend].sum()) for each in (first, second)]
    if not all(value > 0 and spend > 0 for value, spend in totals):
        return Interval(float("nan"), float("nan"), float("nan"))
    of_first, of_second = (
        each.every[:, value] / of_value - each.every[:, spend] / of_spend
        for each, (of_value, of_spend) in zip((first, second), totals, strict=True)
    )
    users = len(of_first)
    error = np.sqrt(((of_first - of_second) ** 2).sum() * users / max(users - 1, 1))
    logarithm = np.log(totals[0][0] / totals[0][1]) - np.log(totals[1][0] / totals[1][1])
    low, middle, high = np.expm1(logarithm + np.array([-NORMAL_95, 0.0, NORMAL_95]) * error)
    return Interval(float(middle), float(low), float(high))


def market_rows(outcomes: pl.DataFrame, *, samples: int, seed: int) -> list[ReportRow]:
    """Return the figures of every arm on each surface, and ratios of one arm over another.

    The ratios are those of ``FIRST`` over ``SECOND`` and of ``BESIDE_FIRST`` over ``FIRST``; every arm has the lift of
    its return on ad spend over the arm without a model.

    Requests for which no arm has a candidate are left out: the arms do not differ there. ROAS is the value of all
    conversions over all spend of the surface, whoever proposed the ad. The rows of the ratios have ``FIRST`` as their
    model. The ratios of the country groups are of all surfaces together.

    Args:
        outcomes: one row an arm, request and source: arm, request_id, user_id, surface, country_group, source, and sums
            over its candidates: ``COUNTS`` and relevance.
        samples: of the bootstrap over users.
    """
    rows = []
    is_own = pl.col("source") == pl.col("arm")
    asked = outcomes.filter(is_own)["request_id"].unique()
    outcomes = outcomes.filter(pl.col("request_id").is_in(asked.implode()))
    with_own = outcomes["surface"].unique()
    for surface in sorted(with_own):
        of_surface = outcomes.filter(surface=surface)
        rows += _rows(of_surface, Segment.surface, surface, samples=samples, seed=seed)
    for group in sorted(outcomes["country_group"].unique()):
        of_group = outcomes.filter(country_group=group)
        rows += _contrast(of_group, Segment.country, group, samples=samples, seed=seed)
    return rows


def _rows(outcomes: pl.DataFrame, segment: Segment, group: str, *, samples: int, seed: int) -> list[ReportRow]:
    measured, users = _measured(outcomes)
    rows, weights = [], _weights(users, samples, seed)
    for arm, sums in measured.items():
        drawn = [sums.figures(weight) for weight in weights]
        rows += [
            ReportRow.of(arm, metric, interval, segment=segment, group=group)
            for metric, interval in _intervals(sums.figures(np.ones(users)), drawn).items()
        ]
        if arm in BESIDE_FIRST:
            rows += [
                ReportRow.of(arm, over(metric, FIRST), interval, segment=segment, group=group)
                for metric, interval in _compared(measured, arm, FIRST, weights).items()
            ]
        if arm == ListArm.trimmed and FIRST in measured:
            lift = roas_lift(sums, measured[FIRST])
            ratio = Interval(1 + lift.estimate, 1 + lift.low, 1 + lift.high)
            rows.append(ReportRow.of(arm, "roas_ratio", ratio, segment=segment, group=group))
        if arm != WITHOUT_A_MODEL and WITHOUT_A_MODEL in measured:
            lift = roas_lift(sums, measured[WITHOUT_A_MODEL])
            rows.append(ReportRow.of(arm, over("roas_lift", WITHOUT_A_MODEL), lift, segment=segment, group=group))
    return rows + _contrast(outcomes, segment, group, samples=samples, seed=seed)


def _contrast(outcomes: pl.DataFrame, segment: Segment, group: str, *, samples: int, seed: int) -> list[ReportRow]:
    measured, users = _measured(outcomes)
    found = _compared(measured, FIRST, SECOND, _weights(users, samples, seed))
    return [ReportRow.of(FIRST, metric, interval, segment=segment, group=group) for metric, interval in found.items()]


def _compared(
    measured: Mapping[str, Measured], first: str, second: str, weights: Sequence[Values]
) -> dict[str, Interval]:
    """Return the ratios and lifts of one arm over another by name; none where one of them did not run."""
    if first not in measured or second not in measured:
        return {}

    def compared(weight: Values) -> dict[str, float]:
        return ratios(measured[first].figures(weight), measured[second].figures(weight))

    found = _intervals(compared(np.ones(len(measured[first].every))), [compared(weight) for weight in weights])
    found["roas_lift"] = roas_lift(measured[first], measured[second])
    return found


def _measured(outcomes: pl.DataFrame) -> tuple[dict[str, Measured], int]:
    """Return the sums of each arm in the order of the rows, and the number of users."""
    users = outcomes["user_id"].unique().sort()
    arms = outcomes["arm"].unique(maintain_order=True)
    return {arm: Measured.of(arm, outcomes.filter(arm=arm), users) for arm in arms}, len(users)


def _weights(users: int, samples: int, seed: int) -> list[Values]:
    """Return how often each user counts in each resample, [samples] of [users]."""
    random = np.random.default_rng(seed)
    return [np.bincount(random.integers(0, users, users), minlength=users).astype(float) for _ in range(samples)]


def _intervals(estimate: dict[str, float], drawn: Sequence[dict[str, float]]) -> dict[str, Interval]:
    """Return each figure with the interval of its resamples."""
    return {metric: percentile_interval(value, [each[metric] for each in drawn]) for metric, value in estimate.items()}

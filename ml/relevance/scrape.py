"""The scrape: the probes' lists under production and under holdout, their relevance, and how precise the measure is.

The holdout has no trim. Both arms answer the same probes, so that the difference of a probe cancels whatever makes the
probe easy or hard. A difference is relative: production over holdout, less 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.intervals import Interval
from ml.relevance.candidates import FEWEST_REQUESTS, HOLDOUT, MAXIMUM_RELEVANCE, PRODUCTION
from ml.relevance.judgements import PLACE, Judging

FRACTION, NDCG = "fraction_relevant", "ndcg"
DEPTH = 10
SIGNIFICANCE, POWER, LEVEL = 0.05, 0.8, 0.95
SHORTFALL = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) + NormalDist().inv_cdf(POWER)
"""Standard errors that a change must have to be found with ``POWER`` at ``SIGNIFICANCE``: 2.80."""
MEASURED = pl.Schema({"probe": pl.Int64(), FRACTION: pl.Float64(), NDCG: pl.Float64(), "judge": pl.String()})
LISTED = ["arm", "probe", *PLACE, "item_id", "rank"]

Values = NDArray[np.float64]


class Lists(Protocol):
    """A service that answers probes."""

    def __call__(self, probes: pl.DataFrame, /) -> Mapping[str, Sequence[Sequence[str]]]:
        """Return the item ids that each probe gets under each arm, best first; probes have ``PLACE`` and user_id."""
        ...


@dataclass(frozen=True)
class Scrape:
    """The answers to the probes, measured.

    Attributes:
        probes: of ``ml.relevance.probes.draw_probes``, a row a probe.
        production, holdout: ``MEASURED``, a row a probe in the order of the probes.
    """

    probes: pl.DataFrame
    production: pl.DataFrame
    holdout: pl.DataFrame

    def gap(self, measure: str = FRACTION, *, where: pl.Expr | None = None) -> Difference:
        """Return production against holdout, of all probes or of some."""
        some = pl.lit(True) if where is None else where
        rows = self.probes.select("stratum", "weight", chosen=some).with_columns(
            production=self.production[measure], holdout=self.holdout[measure]
        )
        known = rows.filter("chosen").drop_nulls(["production", "holdout"])
        one, other, weight = (known[name].to_numpy() for name in ("production", "holdout", "weight"))
        return Difference.of(one, other, known["stratum"].to_list(), weight=weight)

    def mean(self, arm: str, measure: str = FRACTION, *, where: pl.Expr | None = None) -> float:
        """Return the weighted mean of one arm over the probes, or over some, that have a value."""
        values, weight, _ = self._values(arm, measure, where)
        return float(np.average(values, weights=weight)) if len(values) else float("nan")

    def aa_differences(self, measure: str = FRACTION, *, repeats: int, seed: int) -> Values:
        """Return the relative differences of A/A comparisons [at most repeats]: two sets of probes, both in production.

        Each set holds as many probes of each stratum as this scrape. Both are drawn from its answers, with replacement,
        so that no probe is asked again. A comparison with a set whose mean is 0 has no relative difference.
        """
        values, weight, stratum = self._values(PRODUCTION, measure, None)
        share = weight / weight.sum()
        _, of_stratum, sizes = np.unique(stratum, return_inverse=True, return_counts=True)
        order = np.argsort(of_stratum, kind="stable")
        first = (np.cumsum(sizes) - sizes)[of_stratum[order]]
        parts, room = (share * values)[order], sizes[of_stratum[order]]
        generator = np.random.default_rng(seed)

        def drawn_mean() -> float:
            return float(parts[first + (generator.random(len(parts)) * room).astype(np.int64)].sum())

        drawn: Values = np.array([(drawn_mean(), drawn_mean()) for _ in range(repeats if len(parts) else 0)])
        one, other = drawn.reshape(-1, 2).T
        return one[other > 0] / other[other > 0] - 1

    def _values(self, arm: str, measure: str, where: pl.Expr | None) -> tuple[Values, Values, list[str]]:
        """Return the known values of an arm, with the weights and strata of their probes."""
        some = pl.lit(True) if where is None else where
        measured = {PRODUCTION: self.production, HOLDOUT: self.holdout}[arm][measure]
        rows = self.probes.select("stratum", "weight", chosen=some).with_columns(value=measured)
        known = rows.filter("chosen").drop_nulls("value")
        return known["value"].to_numpy(), known["weight"].to_numpy(), known["stratum"].to_list()


@dataclass(frozen=True)
class Difference:
    """The relative difference of two measurements of the same probes.

    Attributes:
        relative: mean of the first over the mean of the second, less 1; NaN where the second is 0 or there is no probe.
        error: its standard error over draws of probes within the strata, by the delta method.
        null_error: the standard error where nothing has changed, by which a change is found.
        null_error_without_strata: the same for as many probes that are drawn from all strata together.
        probes: their number.
    """

    relative: float
    error: float
    null_error: float
    null_error_without_strata: float
    probes: int

    @classmethod
    def of(cls, first: Values, second: Values, stratum: Sequence[str], *, weight: Values) -> Difference:
        """Return the difference of values [probes].

        The variance of a ratio of means is that of the mean of (first - ratio x second) / mean of the second: Cochran,
        1977, "Sampling techniques", sections 6.3 (ratio) and 6.11 (in strata). Where nothing has changed, the ratio
        is 1.
        """
        unknown = float("nan")
        if not len(first) or np.average(second, weights=weight) == 0:
            return cls(unknown, unknown, unknown, unknown, len(first))
        share, middle = weight / weight.sum(), np.average(second, weights=weight)
        ratio = np.average(first, weights=weight) / middle
        parts = (first - second) / middle
        _, of_stratum = np.unique(np.asarray(stratum), return_inverse=True)
        return cls(
            float(ratio - 1),
            stratified_error((first - ratio * second) / middle, share, of_stratum),
            stratified_error(parts, share, of_stratum),
            float(np.sqrt(share @ (parts - share @ parts) ** 2 / len(parts))),
            len(parts),
        )

    @property
    def interval(self) -> Interval:
        """Return the relative difference with its 95 % interval."""
        half = NormalDist().inv_cdf((1 + LEVEL) / 2) * self.error
        return Interval(self.relative, self.relative - half, self.relative + half)

    @property
    def smallest_detectable_change(self) -> float:
        """Return the relative change that such a comparison finds with power .8 at significance .05.

        NaN with fewer than ``FEWEST_REQUESTS`` probes, and of two arms that are equal on every probe, such as before
        the first relevance model: their differences have no spread, and say nothing of how far chance reaches.
        """
        return SHORTFALL * self.null_error if self._has_spread else float("nan")

    @property
    def smallest_without_strata(self) -> float:
        """Return ``smallest_detectable_change`` for as many probes that are drawn from all strata together."""
        return SHORTFALL * self.null_error_without_strata if self._has_spread else float("nan")

    def power(self, change: float) -> float:
        """Return the probability with which a relative change is found at significance .05; NaN as above."""
        if not self._has_spread:
            return float("nan")
        return NormalDist().cdf(abs(change) / self.null_error - NormalDist().inv_cdf(1 - SIGNIFICANCE / 2))

    @property
    def _has_spread(self) -> bool:
        return self.probes >= FEWEST_REQUESTS and self.null_error > 0


def stratified_error(values: Values, share: Values, of_stratum: NDArray[np.int64]) -> float:
    """Return the standard error of a stratified mean; a stratum with a single probe has the variance of the others.

    >>> values, share = np.array([0.0, 1.0, 10.0, 11.0]), np.full(4, 0.25)
    >>> [round(stratified_error(values, share, np.array(of_stratum)), 2) for of_stratum in ([0, 0, 1, 1], [0, 0, 0, 0])]
    [0.35, 2.9]
    """
    number = np.bincount(of_stratum)
    total = np.bincount(of_stratum, weights=share)
    mean = np.bincount(of_stratum, weights=values) / number
    squares = np.bincount(of_stratum, weights=(values - mean[of_stratum]) ** 2)
    usual = squares.sum() / max((number - 1).sum(), 1)
    variance = np.where(number > 1, squares / np.maximum(number - 1, 1), usual)
    return float(np.sqrt((total**2 * variance / number).sum()))


def scrape(probes: pl.DataFrame, lists: Lists, judging: Judging) -> Scrape:
    """Ask every probe under both arms, and measure the answers."""
    answered = lists(probes)
    listed = [
        _listed(probes, answered[arm]).with_columns(arm=pl.lit(arm)).select(LISTED) for arm in (PRODUCTION, HOLDOUT)
    ]
    measured = measure(pl.concat(listed), judging)
    numbers = pl.DataFrame({"probe": np.arange(len(probes))})

    def of(arm: str) -> pl.DataFrame:
        own = measured.filter(pl.col("arm") == arm).drop("arm")
        return numbers.join(own, on="probe", how="left", maintain_order="left").select(MEASURED.names()).cast(MEASURED)

    return Scrape(probes, of(PRODUCTION), of(HOLDOUT))


def measure(listed: pl.DataFrame, judging: Judging) -> pl.DataFrame:
    """Return the measures of each list.

    The fraction relevant is the mean over the first ten items. nDCG@10 has the gain 2^label - 1 and the discount
    1 / log2(1 + rank), over the best ten of all items that any list of the same place holds. Source: Burges et al.,
    2005, "Learning to Rank using Gradient Descent". Items that nobody can judge do not count, and a list without
    another item has no value.

    Args:
        listed: arm, probe, ``PLACE``, item_id, rank (from 1).

    Returns:
        arm, probe, fraction_relevant, ndcg, judge (of most of the items).
    """
    pairs = judging(listed.select(*PLACE, "item_id").unique(maintain_order=True))
    pairs = pairs.select(*PLACE, "item_id", "relevant", "judge", gain=2 ** _label(pl.col("gain")) - 1)
    known = listed.join(pairs, on=[*PLACE, "item_id"], how="left", nulls_equal=True).filter(
        pl.col("rank") <= DEPTH, pl.col("relevant").is_not_null()
    )
    best = (
        known.select(*PLACE, "item_id", "gain")
        .unique()
        .sort("gain", descending=True)
        .group_by(PLACE)
        .agg(pl.col("gain").head(DEPTH))
        .explode("gain")
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over(PLACE))
        .group_by(PLACE)
        .agg(ideal=_discounted_gain())
    )
    return (
        known.group_by("arm", "probe", *PLACE)
        .agg(
            pl.col("relevant").mean().alias(FRACTION),
            _discounted_gain().alias("found"),
            pl.col("judge").drop_nulls().mode().sort().first(),
        )
        .join(best, on=PLACE, how="left", nulls_equal=True)
        .select(
            "arm",
            "probe",
            FRACTION,
            pl.when(pl.col("ideal") > 0).then(pl.col("found") / pl.col("ideal")).alias(NDCG),
            "judge",
        )
        .sort("arm", "probe")
    )


def within(differences: Values, bound: float) -> float:
    """Return the share of differences that are at most ``bound`` from 0.

    >>> within(np.array([0.001, -0.004, 0.02, -0.5]), 0.01)
    0.5
    """
    return float((np.abs(differences) <= bound).mean()) if len(differences) else float("nan")


def _listed(probes: pl.DataFrame, lists: Sequence[Sequence[str]]) -> pl.DataFrame:
    """Return the items of the lists: probe, ``PLACE``, item_id, rank."""
    items = pl.Series("item_id", [list(each[:DEPTH]) for each in lists], dtype=pl.List(pl.String))
    return (
        probes.select(*PLACE)
        .with_columns(items, probe=pl.int_range(pl.len()))
        .with_columns(rank=pl.int_ranges(1, pl.col("item_id").list.len() + 1))
        .explode("item_id", "rank")
        .drop_nulls("item_id")
    )


def _label(relevance: pl.Expr) -> pl.Expr:
    """Return the label that a relevance from 0 to 1 stands for."""
    return 1 + (MAXIMUM_RELEVANCE - 1) * relevance


def _discounted_gain() -> pl.Expr:
    return (pl.col("gain") / (pl.col("rank") + 1).log(2)).sum()

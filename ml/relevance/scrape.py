"""The scrape: the probes' lists under production and under holdout, their relevance, and how precise the measure is.

The holdout has no trim. Both arms answer the same probes, so that the difference of a probe cancels whatever makes the
probe easy or hard. A difference is relative: production over holdout, less 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.intervals import Interval
from ml.relevance.probes import PLACE

PRODUCTION, HOLDOUT = "production", "holdout"
FRACTION, NDCG = "fraction_relevant", "ndcg"
DEPTH = 10
SIGNIFICANCE, POWER, LEVEL = 0.05, 0.8, 0.95
SHORTFALL = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) + NormalDist().inv_cdf(POWER)
"""Standard errors that a change must have to be found with ``POWER`` at ``SIGNIFICANCE``: 2.80."""
MEASURED = pl.Schema({"probe": pl.Int64(), FRACTION: pl.Float64(), NDCG: pl.Float64(), "judge": pl.String()})
HIGHEST_GAIN = 4
"""Steps from the lowest to the highest label."""

Values = NDArray[np.float64]
Judging = Callable[[pl.DataFrame], pl.DataFrame]
"""Adds relevant, gain and judge (``ml.relevance.judgements.judged``) to pairs: ``PLACE``, item_id."""


class Lists(Protocol):
    """A service that answers probes."""

    def __call__(self, probes: pl.DataFrame, arm: str, /) -> Sequence[Sequence[str]]:
        """Return the item ids that each probe gets, best first; ``probes`` have ``PLACE`` and user_id."""
        ...


@dataclass(frozen=True)
class Scrape:
    """The answers to the probes, measured.

    Attributes:
        probes: of ``ml.relevance.probes.draw_probes``, a row a probe.
        production, holdout: ``MEASURED``, a row a probe in the order of the probes.
        others: the same under production for the other user of each probe; null for a probe without one.
    """

    probes: pl.DataFrame
    production: pl.DataFrame
    holdout: pl.DataFrame
    others: pl.DataFrame

    def gap(self, measure: str = FRACTION, *, where: pl.Expr | None = None) -> Difference:
        """Return production against holdout, of all probes or of some."""
        return self._difference(self.production, self.holdout, measure, where=where)

    def other_users(self, measure: str = FRACTION) -> Difference:
        """Return production for other users against production: an A/A comparison."""
        return self._difference(self.others, self.production, measure, where=None)

    def mean(self, arm: str, measure: str = FRACTION) -> float:
        """Return the weighted mean of one arm over the probes that have a value."""
        measured = {PRODUCTION: self.production, HOLDOUT: self.holdout}[arm]
        values = measured[measure].to_numpy()
        known = np.isfinite(values)
        weight = self.probes["weight"].to_numpy()[known]
        return float(np.average(values[known], weights=weight)) if known.any() else float("nan")

    def spreads(self, measure: str = FRACTION) -> dict[str, float]:
        """Return the standard deviation of the gap in each stratum, by which the next scrape shares its probes."""
        residual = self.gap(measure)
        frame = pl.DataFrame({"stratum": residual.stratum, "residual": residual.residual})
        of_strata = frame.group_by("stratum").agg(pl.col("residual").std()).drop_nulls()
        return dict(sorted(of_strata.rows()))

    def _difference(
        self, first: pl.DataFrame, second: pl.DataFrame, measure: str, *, where: pl.Expr | None
    ) -> Difference:
        some = pl.lit(True) if where is None else where
        rows = self.probes.select("stratum", "weight", chosen=some).with_columns(
            first=first[measure], second=second[measure]
        )
        known = rows.filter("chosen").drop_nulls(["first", "second"])
        one, other, weight = (known[name].to_numpy() for name in ("first", "second", "weight"))
        return Difference.of(one, other, known["stratum"].to_list(), weight=weight)


@dataclass(frozen=True)
class Difference:
    """The relative difference of two measurements of the same probes.

    Attributes:
        relative: mean of the first over the mean of the second, less 1; NaN where the second is 0 or there is no probe.
        error: its standard error over draws of probes within the strata, by the delta method.
        error_without_strata: the same for as many probes that are drawn from all strata together.
        residual, weight, stratum: (probes,) the part of each probe in the difference; the error is theirs.
    """

    relative: float
    error: float
    error_without_strata: float
    residual: Values
    weight: Values
    stratum: list[str]

    @classmethod
    def of(cls, first: Values, second: Values, stratum: Sequence[str], *, weight: Values) -> Difference:
        """Return the difference of values [probes].

        The variance of a ratio of means is that of the means of the residuals (first - ratio x second) / mean of the
        second: Cochran, 1977, "Sampling techniques", sections 6.3 (ratio) and 6.11 (in strata).
        """
        if not len(first) or np.average(second, weights=weight) == 0:
            return cls(float("nan"), float("nan"), float("nan"), np.zeros(0), np.zeros(0), [])
        middle = np.average(second, weights=weight)
        ratio = np.average(first, weights=weight) / middle
        residual = (first - ratio * second) / middle
        share = weight / weight.sum()
        _, of_stratum = np.unique(np.asarray(stratum), return_inverse=True)
        number = np.bincount(of_stratum)
        total = np.bincount(of_stratum, weights=share)
        mean = np.bincount(of_stratum, weights=residual) / number
        squares = np.bincount(of_stratum, weights=(residual - mean[of_stratum]) ** 2)
        several = number > 1
        usual = squares[several].sum() / max((number[several] - 1).sum(), 1)  # of a stratum with a single probe
        variance = np.where(several, squares / np.maximum(number - 1, 1), usual)
        everywhere = float(share @ residual**2)  # the residuals' weighted mean is 0
        return cls(
            float(ratio - 1),
            float(np.sqrt((total**2 * variance / number).sum())),
            float(np.sqrt(everywhere / len(first))),
            residual,
            share,
            list(stratum),
        )

    @property
    def interval(self) -> Interval:
        """Return the relative difference with its 95 % interval."""
        half = NormalDist().inv_cdf((1 + LEVEL) / 2) * self.error
        return Interval(self.relative, self.relative - half, self.relative + half)

    @property
    def smallest_detectable_change(self) -> float:
        """Return the relative change that such a comparison finds with power .8 at significance .05."""
        return SHORTFALL * self.error

    def power(self, change: float) -> float:
        """Return the probability with which a relative change is found at significance .05."""
        if not self.error > 0:
            return float("nan") if np.isnan(self.error) else 1.0
        return NormalDist().cdf(abs(change) / self.error - NormalDist().inv_cdf(1 - SIGNIFICANCE / 2))


def scrape(probes: pl.DataFrame, lists: Lists, judging: Judging) -> Scrape:
    """Ask every probe under both arms, and for its other user under production, and measure the answers."""
    others = probes.filter(pl.col("other_user_id").is_not_null()).with_columns(user_id="other_user_id")
    asked = {
        PRODUCTION: lists(probes, PRODUCTION),
        HOLDOUT: lists(probes, HOLDOUT),
        "others": lists(others, PRODUCTION),
    }
    rows = np.arange(len(probes))
    other_rows = rows[probes["other_user_id"].is_not_null().to_numpy()]
    found = [
        _listed(probes, rows if name != "others" else other_rows, answered).with_columns(arm=pl.lit(name))
        for name, answered in asked.items()
    ]
    measured = measure(pl.concat(found), judging)
    numbers = pl.DataFrame({"probe": rows})

    def of(arm: str) -> pl.DataFrame:
        own = measured.filter(pl.col("arm") == arm).drop("arm")
        return numbers.join(own, on="probe", how="left", maintain_order="left").select(MEASURED.names()).cast(MEASURED)

    return Scrape(probes, of(PRODUCTION), of(HOLDOUT), of("others"))


def measure(listed: pl.DataFrame, judging: Judging) -> pl.DataFrame:
    """Return the measures of each list.

    The fraction relevant is the mean over the first ten items. nDCG@10 has the gain 2^(label - 1) - 1 and the discount
    1 / log2(1 + rank), over the best ten of all items that any list of the same place holds: Jarvelin and Kekalainen,
    2002, "Cumulated gain-based evaluation of IR techniques", with the gain of Burges et al., 2005. Items that nobody
    can judge do not count, and a list without another item has no value.

    Args:
        listed: arm, probe, ``PLACE``, item_id, rank (from 1).

    Returns:
        arm, probe, fraction_relevant, ndcg, judge (of most of the items).
    """
    pairs = judging(listed.select(*PLACE, "item_id").unique(maintain_order=True))
    pairs = pairs.select(*PLACE, "item_id", "relevant", "judge", gain=2 ** (HIGHEST_GAIN * pl.col("gain")) - 1)
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


def aa_differences(difference: Difference, *, repeats: int, seed: int) -> Values:
    """Return relative differences of an A/A comparison [repeats]: what chance makes of the same service.

    The two answers of a probe are of one arm, so that either could have been the first: each repeat swaps the answers
    of half of the probes. ``difference`` is of ``Scrape.other_users``.
    """
    generator = np.random.default_rng(seed)
    parts = difference.weight * difference.residual
    signs = generator.integers(0, 2, (repeats, len(parts)), dtype=np.int8)
    found: Values = (2.0 * signs - 1.0) @ parts
    return found


def within(differences: Values, bound: float) -> float:
    """Return the share of differences that are at most ``bound`` from 0.

    >>> within(np.array([0.001, -0.004, 0.02, -0.5]), 0.01)
    0.5
    """
    return float((np.abs(differences) <= bound).mean()) if len(differences) else float("nan")


def _listed(probes: pl.DataFrame, rows: NDArray[np.int64], lists: Sequence[Sequence[str]]) -> pl.DataFrame:
    """Return the items of the lists of some probes: probe, ``PLACE``, item_id, rank."""
    asked = probes[rows].select(*PLACE, probe=pl.Series(rows, dtype=pl.Int64))
    items = pl.Series("item_id", [list(each[:DEPTH]) for each in lists], dtype=pl.List(pl.String))
    return (
        asked.with_columns(items)
        .with_columns(rank=pl.int_ranges(1, pl.col("item_id").list.len() + 1))
        .explode("item_id", "rank")
        .drop_nulls("item_id")
    )


def _discounted_gain() -> pl.Expr:
    return (pl.col("gain") / (pl.col("rank") + 1).log(2)).sum()

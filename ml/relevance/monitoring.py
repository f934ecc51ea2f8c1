"""Watch a day's candidates: coverage of features, stability of features and scores, the rate of the trim.

Each figure is of one cell, a log x surface x content type x version of the relevance model, and is held against the
days before. The logs are never put together: a candidate's stage and weight do not say the same in both. A warning
needs a change that is large enough to matter and larger than chance explains. The candidates of a request resemble each
other, so that chance is counted in requests, not in candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import chi2

from ml.relevance.calibration import UNKNOWN_TYPE
from ml.relevance.candidates import FEWEST_REQUESTS, HOLDOUT, Log

CELL = ("log", "surface", "content_type", "relevance_version")
FALSE_ALARM = 1e-6
"""Probability with which one figure of an undisturbed day may warn: a month has some ten thousand figures."""
SURE = NormalDist().inv_cdf(1 - FALSE_ALARM)
FEWEST_DAYS = 3
"""A cell with fewer days before, or with fewer than ``FEWEST_REQUESTS`` requests, has figures without a bound."""
BINS = 10
SCORES = ("trim_score", "relevance")
MONITORED = pl.Schema(
    {
        **{column: pl.String() for column in CELL},
        "figure": pl.String(),
        "feature": pl.String(),
        "value": pl.Float64(),
        "reference": pl.Float64(),
        "bound": pl.Float64(),
        "candidates": pl.Int64(),
        "requests": pl.Float64(),
        "warning": pl.Boolean(),
    }
)

Values = NDArray[np.float64]


class Figure(StrEnum):
    """What is watched."""

    coverage = "coverage"  # share of candidates of which the feature is known; warns of a loss
    stability = "stability"  # population stability index of the known values; warns of a rise
    trim_rate = "trim_rate"  # share of the candidates of the trim that were dropped there; warns of any change


@dataclass(frozen=True)
class Bounds:
    """The changes that are large enough to matter.

    Attributes:
        coverage: lost share of the coverage of the days before. stability: population stability index.
        trim_rate: change of the rate, up or down.
    """

    coverage: float = 0.1
    stability: float = 0.2
    trim_rate: float = 0.1


@dataclass(frozen=True)
class Sample:
    """The candidates of one cell.

    Attributes:
        values: (candidates, columns) features and scores, NaN where not known. weight: (candidates,).
        request, day: (candidates,) numbers from 0.
        trimmed: (candidates,) 1 where the trim dropped the candidate, 0 where it kept it, NaN for no part in the trim.
    """

    values: Values
    weight: Values
    request: NDArray[np.int64]
    day: NDArray[np.int64]
    trimmed: Values

    @classmethod
    def of(cls, candidates: pl.DataFrame, width: int) -> Sample:
        """Return the sample of candidates with columns ``CANDIDATES`` and day; ``width`` is the number of features."""
        rows = candidates.select(
            known=pl.col("features").list.len().fill_null(0) == width,
            weight=1 / pl.col("inclusion_probability").fill_null(1.0),
            request=(pl.col("request_id").rank("dense") - 1).cast(pl.Int64),
            day=(pl.col("day").rank("dense") - 1).cast(pl.Int64),
            trimmed=pl.when(pl.col("arm") != HOLDOUT, pl.col("stage") != "retrieved").then(
                (pl.col("stage") == "trimmed").cast(pl.Float64)
            ),
        )
        features = [
            pl.when(pl.col("features").list.len() == width)
            .then(pl.col("features").list.get(place, null_on_oob=True))
            .cast(pl.Float64)
            .alias(f"feature {place}")
            for place in range(width)
        ]
        values = candidates.select(*features, *(pl.col(name).cast(pl.Float64) for name in SCORES))
        return cls(
            values.fill_null(float("nan")).to_numpy(),
            rows["weight"].to_numpy(),
            rows["request"].to_numpy(),
            rows["day"].to_numpy(),
            rows["trimmed"].fill_null(float("nan")).to_numpy(),
        )

    def take(self, rows: NDArray[np.bool_]) -> Sample:
        return Sample(**{name: getattr(self, name)[rows] for name in Sample.__annotations__})


def monitor(
    today: pl.DataFrame, before: pl.DataFrame, features: Mapping[str, Sequence[str]], bounds: Bounds | None = None
) -> pl.DataFrame:
    """Return the figures of a day.

    Args:
        today: ``ml.relevance.candidates.CANDIDATES``. before: the same with a column day, of the days before.
        features: the names of the features of each relevance version. A candidate of another version, or without a
            version, is not watched. Candidates without a content type are a cell of their own, ``unknown``.

    Returns:
        ``MONITORED``: value of the day and reference of the days before (null: nothing to hold the day against);
        bound: the value from which on, or below which, the figure warns; for the trim rate the largest change. Where
        the service's sample has a surface and content type, only the sample has a trim rate there: it holds whatever
        the trim dropped.
    """
    dated = today.with_columns(day=pl.lit(0)) if "day" not in today.columns else today
    dated, before = (each.with_columns(pl.col("content_type").fill_null(UNKNOWN_TYPE)) for each in (dated, before))
    sampled = set(dated.filter(log=Log.funnel_sample.value).select("surface", "content_type").unique().rows())
    rows = []
    for key, of_cell in dated.drop_nulls(CELL).sort(CELL).group_by(CELL, maintain_order=True):
        cell = dict(zip(CELL, map(str, key), strict=True))
        names = features.get(cell["relevance_version"])
        if names is not None:
            of_place = before.filter(*(pl.col(column) == cell[column] for column in CELL[:-1]))
            of_version = of_place.filter(relevance_version=cell["relevance_version"])
            now, *earlier = (Sample.of(each, len(names)) for each in (of_cell, of_place, of_version))
            common = {**cell, "candidates": of_cell.height, "requests": _effective(now.weight, now.request)}
            found = _figures(now, earlier[0], names, of_version=earlier[1], bounds=bounds or Bounds())
            beside_a_sample = cell["log"] != Log.funnel_sample and (cell["surface"], cell["content_type"]) in sampled
            left_out = Figure.trim_rate if beside_a_sample else None
            rows += [{**common, **row} for row in found if row["figure"] != left_out]
    return pl.DataFrame(rows, schema=MONITORED, orient="row")


def warnings_of(monitored: pl.DataFrame) -> list[str]:
    """Return a sentence for each warning: the cell, the feature, and the size of the change."""
    found = []
    for row in monitored.filter("warning").iter_rows(named=True):
        where = ", ".join(row[column] for column in CELL)
        value, reference, bound = row["value"], row["reference"], row["bound"]
        said = {
            Figure.coverage: f"the feature {row['feature']} is known of {value:.1%} of the candidates, of "
            f"{reference or 0:.1%} in the days before (bound {bound:.1%})",
            Figure.stability: f"the distribution of {row['feature']} has moved by a population stability index of "
            f"{value:.2f} (bound {bound:.2f})",
            Figure.trim_rate: f"the trim drops {value:.1%} of the candidates, {reference or 0:.1%} in the days before "
            f"(bound of the change {bound:.1%})",
        }
        found.append(f"{where}: {said[Figure(row['figure'])]}.")
    return found


def _figures(
    now: Sample, then: Sample, names: Sequence[str], *, of_version: Sample, bounds: Bounds
) -> Iterator[dict[str, object]]:
    """Yield the figures of one cell: features and trim rate against all versions before, scores against their own.

    Another version gives many candidates another lowest score: a move of all ranks, and of no meaning.
    """
    comparable = _comparable(now, then)
    for place, name in enumerate(names):
        is_known, was_known = (np.isfinite(each.values[:, place]).astype(float) for each in (now, then))
        value, reference, chance = _compared(is_known, was_known, now, then=then)
        bound = reference - max(bounds.coverage * reference, SURE * chance) if comparable else None
        yield _row(Figure.coverage, name, value, reference=reference, bound=bound, low=True)
        yield _stability_row(name, place, now, then=then, least=bounds.stability)
    for place, name in enumerate(SCORES, len(names)):
        yield _stability_row(name, place, now, then=of_version, least=bounds.stability)
    took_part, before = now.take(np.isfinite(now.trimmed)), then.take(np.isfinite(then.trimmed))
    if len(took_part.weight):
        value, reference, chance = _compared(took_part.trimmed, before.trimmed, took_part, then=before)
        bound = max(bounds.trim_rate, SURE * chance) if comparable and np.isfinite(chance) else None
        row = _row(Figure.trim_rate, "", value, reference=reference, bound=bound)
        yield {**row, "warning": bound is not None and abs(value - reference) > bound}


def _stability_row(name: str, place: int, now: Sample, *, then: Sample, least: float) -> dict[str, object]:
    """Return the stability of the known values of one column."""
    known, knew = (each.take(np.isfinite(each.values[:, place])) for each in (now, then))
    value, chance = stability(known, knew, place)
    bound = max(least, chance) if _comparable(now, then) and np.isfinite(chance) else None
    return _row(Figure.stability, name, value, reference=0.0, bound=bound)


def _comparable(now: Sample, then: Sample) -> bool:
    """Return whether a day and the days before have enough requests, and the days before are enough."""
    requests = min(_effective(each.weight, each.request) for each in (now, then))
    return len(np.unique(then.day)) >= FEWEST_DAYS and requests >= FEWEST_REQUESTS


def _row(
    figure: Figure, feature: str, value: float, *, reference: float, bound: float | None, low: bool = False
) -> dict[str, object]:
    """Return a figure that warns above its bound, or below it where ``low``."""
    known = bound is not None and np.isfinite(bound) and np.isfinite(value)
    return {
        "figure": figure.value,
        "feature": feature,
        "value": value if np.isfinite(value) else None,
        "reference": reference if np.isfinite(reference) else None,
        "bound": bound if known else None,
        "warning": bool(known and (value < bound if low else value > bound)),  # type: ignore[operator]
    }


def _compared(flag: Values, flag_then: Values, now: Sample, *, then: Sample) -> tuple[float, float, float]:
    """Return the share of a flag today and in the days before, and the standard error of the difference.

    The error is at least the spread between the days before: a share may differ from day to day for a reason.
    """
    share, error = weighted_share(flag, now.weight, now.request)
    if not len(flag_then):
        return share, float("nan"), float("nan")
    reference, error_then = weighted_share(flag_then, then.weight, then.request)
    days = np.unique(then.day)
    daily = [np.average(flag_then[then.day == day], weights=then.weight[then.day == day]) for day in days]
    spread = float(np.std(daily, ddof=1)) * np.sqrt(1 + 1 / len(days)) if len(days) > 1 else 0.0
    return share, reference, max(float(np.hypot(error, error_then)), spread)


def weighted_share(flag: Values, weight: Values, request: NDArray[np.int64]) -> tuple[float, float]:
    """Return a weighted share, and its standard error over requests.

    The error is of a ratio of two sums over requests, linearised: Cochran, 1977, "Sampling techniques", section 2.11.

    >>> flag, weight = np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4)
    >>> weighted_share(flag, weight, np.array([0, 0, 1, 1]))[0], round(weighted_share(flag, weight, np.arange(4))[1], 3)
    (0.5, 0.25)
    """
    total = weight.sum()
    share = float(weight @ flag / total)
    of_requests = np.bincount(request, weights=weight * (flag - share))
    return share, float(np.sqrt((of_requests**2).sum()) / total)


def stability(now: Sample, then: Sample, column: int) -> tuple[float, float]:
    """Return the population stability index of one column, and the value that chance stays below.

    The index is the sum over bins of (p - q) ln(p / q), with p the share today and q the share before; the bins hold a
    tenth of the days before each, or single values of a feature that has few. Without a change, the index over
    (1 / n + 1 / m) follows a chi-squared distribution with one degree of freedom less than bins; n and m are sample
    sizes, here in requests. Source: Yurdakul and Naranjo, 2020, "Statistical properties of the population stability
    index". Half a request more in each bin keeps the index finite.

    Args:
        now, then: candidates whose value is known.

    Returns:
        The index and the bound; both NaN where either sample is empty.
    """
    values, before = now.values[:, column], then.values[:, column]
    if not len(values) or not len(before):
        return float("nan"), float("nan")
    edges = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = len(edges) + 1
    sizes = [_effective(each.weight, each.request) for each in (now, then)]
    shares = []
    for sample, of_sample, size in zip((now, then), (values, before), sizes, strict=True):
        place = np.searchsorted(edges, of_sample, side="left")
        weight = np.bincount(place, weights=sample.weight, minlength=bins) / sample.weight.sum()
        shares.append((weight * size + 0.5) / (size + 0.5 * bins))
    index = float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
    return index, float(chi2.ppf(1 - FALSE_ALARM, max(bins - 1, 1)) * (1 / sizes[0] + 1 / sizes[1]))


def _effective(weight: Values, request: NDArray[np.int64]) -> float:
    """Return the number of requests, fewer where few requests have most of the weight.

    Source: Kish, 1965, "Survey sampling": squared sum of the weights over the sum of their squares.
    """
    if not len(weight):
        return 0.0
    of_requests = np.bincount(request, weights=weight)
    return float(of_requests.sum() ** 2 / (of_requests**2).sum())

"""Agreement of raters who judged the same pairs: disagreement by row, Krippendorff's alpha, the bias of each rater.

A pair is a subject item or a query with a candidate. Of several labels that one rater gave one pair, the newest counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import t as student

from ml.evaluation.intervals import Interval
from ml.relevance.judgements import PAIR, newest_labels

LEVEL = 0.95
FEWEST_PAIRS = 20
"""A rater with fewer pairs beside others is not named."""
SMALLEST_BIAS = 0.25
"""In points. A rater with a smaller bias is not named."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of raters on the pairs that two or more of them judged.

    Attributes:
        pairs: with two or more raters. labels: of these pairs.
        disagreement: share of pairs on which two raters differ; with more than two raters, the mean over all twos of
            raters of the pair.
        far_disagreement: the same for a difference of more than one point.
        alpha: Krippendorff's alpha for ordinal data; NaN where all labels are equal or no pair has two raters.
        raters: rater_id, pairs, bias (mean difference in points from the other raters of the same pairs), low, high (an
            interval that holds for all raters together with 95 %), biased; the largest bias first.
    """

    pairs: int
    labels: int
    disagreement: Interval
    far_disagreement: Interval
    alpha: float
    raters: pl.DataFrame

    @property
    def biased(self) -> list[str]:
        """Return the names of the biased raters."""
        return self.raters.filter("biased")["rater_id"].to_list()


def agreement(labels: pl.DataFrame) -> Agreement:
    """Return the agreement of all raters.

    Args:
        labels: surface, subject_item_id, query, item_id, rater_id, label, labelled_at.
    """
    judged = newest_labels(labels).with_columns(pair=pl.struct(PAIR).rank("dense") - 1)
    judged = judged.filter(pl.len().over("pair") > 1).with_columns(pair=pl.col("pair").rank("dense") - 1).sort("pair")
    pair, label = judged["pair"].to_numpy().astype(np.int64), judged["label"].to_numpy().astype(np.int64)
    counts = label_counts(pair, label)
    return Agreement(
        pairs=len(counts),
        labels=len(label),
        disagreement=_share(differing(counts, more_than=0)),
        far_disagreement=_share(differing(counts, more_than=1)),
        alpha=ordinal_alpha(counts),
        raters=rater_biases(judged),
    )


def label_counts(pair: NDArray[np.int64], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many raters gave each label to each pair [pairs, labels from the lowest to the highest that is there].

    >>> label_counts(np.array([0, 0, 1, 1]), np.array([2, 4, 4, 4])).tolist()
    [[1, 0, 1], [0, 0, 2]]
    """
    if not len(pair):
        return np.zeros((0, 0), np.int64)
    low, width = label.min(), int(label.max() - label.min()) + 1
    return np.bincount(pair * width + label - low, minlength=(int(pair.max()) + 1) * width).reshape(-1, width)


def differing(counts: NDArray[np.int64], *, more_than: int) -> NDArray[np.float64]:
    """Return the share of the twos of raters of each pair whose labels differ by more than ``more_than`` [pairs].

    Three raters gave 1, 1 and 3: of the three twos, two differ.

    >>> differing(np.array([[2, 0, 1]]), more_than=0).round(3).tolist()
    [0.667]
    """
    values = np.arange(counts.shape[1])
    far = np.abs(values[:, None] - values) > more_than
    raters = counts.sum(axis=1)
    found: NDArray[np.float64] = np.einsum("pi,ij,pj->p", counts, far, counts) / (raters * (raters - 1))
    return found


def ordinal_alpha(counts: NDArray[np.int64]) -> float:
    """Return Krippendorff's alpha for ordinal data: 1 is full agreement, 0 the agreement of chance.

    alpha = 1 - observed disagreement / expected disagreement, each over the coincidences of values c and k, whose
    distance is (sum of n_g for g from c to k, less (n_c + n_k) / 2) squared, with n_g the number of labels g. Source:
    Krippendorff, 2011, "Computing Krippendorff's alpha-reliability", section F, and section D for ordinal data.

    Args:
        counts: [pairs, labels] of pairs with two or more raters.
    """
    if not len(counts):
        return float("nan")
    raters = counts.sum(axis=1)
    total = counts.sum(axis=0).astype(float)
    labels = total.sum()
    together = np.einsum("pi,pj,p->ij", counts, counts, 1 / (raters - 1))
    together -= np.diag((counts / (raters - 1)[:, None]).sum(axis=0))
    until = np.cumsum(total) - total / 2  # labels below the middle of each value
    distance = (until[:, None] - until) ** 2
    expected = (np.outer(total, total) * distance).sum() / (labels - 1)
    if expected == 0:
        return float("nan")
    return float(1 - (together * distance).sum() / expected)


def rater_biases(judged: pl.DataFrame) -> pl.DataFrame:
    """Return the bias of each rater, as ``Agreement.raters``.

    The interval is Student's, with Bonferroni's correction for the number of raters. A rater is biased where the
    interval does not hold 0, the bias is ``SMALLEST_BIAS`` or more, and the pairs are ``FEWEST_PAIRS`` or more. With
    two raters in all nobody can say which of the two is biased: both are named.

    Args:
        judged: pair, rater_id, label; each rater once a pair, and two or more raters a pair.
    """
    others = (pl.col("label").sum().over("pair") - pl.col("label")) / (pl.len().over("pair") - 1)
    found = (
        judged.with_columns(difference=pl.col("label") - others)
        .group_by("rater_id")
        .agg(
            pairs=pl.len().cast(pl.Int64),
            bias=pl.col("difference").mean(),
            spread=pl.col("difference").std() / pl.len().sqrt(),
        )
    )
    pairs = found["pairs"].to_numpy()
    quantile = student.ppf(1 - (1 - LEVEL) / 2 / max(len(found), 1), np.maximum(pairs - 1, 1))
    margin = pl.when(pl.col("pairs") > 1).then(pl.col("spread") * pl.Series(quantile, dtype=pl.Float64))
    sure = (pl.col("low") > 0) | (pl.col("high") < 0)
    large = (pl.col("bias").abs() >= SMALLEST_BIAS) & (pl.col("pairs") >= FEWEST_PAIRS)
    return (
        found.with_columns(low=pl.col("bias") - margin, high=pl.col("bias") + margin)
        .with_columns(biased=(sure & large).fill_null(False))
        .sort(pl.col("bias").abs(), "rater_id", descending=[True, False])
        .select("rater_id", "pairs", "bias", "low", "high", "biased")
    )


def _share(values: NDArray[np.float64]) -> Interval:
    """Return the mean of shares with Wilson's interval, which is never too narrow for values between 0 and 1.

    Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    number = len(values)
    if not number:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean, squared = float(values.mean()), NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2
    middle = (mean + squared / 2 / number) / (1 + squared / number)
    half = np.sqrt(squared * (mean * (1 - mean) / number + squared / 4 / number**2)) / (1 + squared / number)
    return Interval(mean, float(max(middle - half, 0.0)), float(min(middle + half, 1.0)))

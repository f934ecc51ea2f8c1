"""Fits a relevance model to labels: trees, calibration on folds that they did not see, thresholds of the trim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from ml.features.text import TextBasis
from ml.relevance.calibration import UNKNOWN_TYPE, Calibration
from ml.relevance.judged_pairs import JudgedPairs
from ml.relevance.model_report import Verdicts
from ml.relevance.nothing_to_tell import NothingToTell
from ml.relevance.relevance_model import RelevanceModel, Trees, raw_scores, thresholds_of
from settings import RelevanceSettings

Values = NDArray[np.float64]
FOLDS = 5
LEAST_RELEVANT = 100
"""Relevant labels with which a content type gets a threshold of its own."""
BINS = 64
"""Of a feature; some thousand labels need no finer ones."""
COMMON = {"max_bins": BINS, "min_samples_leaf": 40, "early_stopping": False, "random_state": 0}
# Both are small, because each request waits for them.
TRIM = HistGradientBoostingClassifier(learning_rate=0.25, max_iter=20, max_leaf_nodes=12, **COMMON)
AUCTION = HistGradientBoostingRegressor(learning_rate=0.1, max_iter=60, max_leaf_nodes=8, **COMMON)


@dataclass(frozen=True)
class FittedRelevance:
    """A model, and the verdict on each label that it has learnt by models that have not seen the label's place."""

    model: RelevanceModel
    unseen: Verdicts


def fit_relevance(
    judged: JudgedPairs,
    settings: RelevanceSettings,
    *,
    version: str,
    trained_until: float,
    text: TextBasis,
) -> FittedRelevance:
    """Fit both models to labels.

    Raises:
        NothingToTell: all labels are relevant, or none is, or they are about a single subject or query.
    """
    if len(np.unique(judged.place)) < 2:
        raise NothingToTell(f"{len(judged)} labels are about {len(np.unique(judged.place))} subjects and queries")
    relevant = (judged.label >= settings.relevant_label).astype(np.float64)
    if relevant.min() == relevant.max():
        raise NothingToTell(
            f"every label is {'relevant' if relevant.all() else 'irrelevant'}: nothing tells pairs apart"
        )
    with threadpool_limits(1):  # beside other work, threads that wait for each other made minutes of seconds
        trim, auction = _Folded.of(TRIM, judged, relevant), _Folded.of(AUCTION, judged, judged.relevance)
    calibration = trim.calibration(judged, settings)
    trimmed = calibration.of(trim.raw, judged.cell)
    model = RelevanceModel(
        version=version,
        trained_until=trained_until,
        relevant_label=settings.relevant_label,
        trim=trim.trained(calibration),
        auction=auction.trained(auction.calibration(judged, settings)),
        thresholds=_thresholds(judged, trimmed, relevant > 0, settings.trim_keeps),
        text=text,
    )
    return FittedRelevance(model, _unseen(trim, auction, judged, settings))


@dataclass(frozen=True)
class _Folded:
    """The fits of one target: trees of all labels, and the scores of each label by trees of the other folds.

    Attributes:
        columns: the features that some label's pair has.
        target: [labels]. fold: [labels] number of the fold. raw: [labels] before calibration.
    """

    trees: HistGradientBoostingClassifier | HistGradientBoostingRegressor
    columns: NDArray[np.int64]
    target: Values
    fold: NDArray[np.int64]
    raw: Values

    @classmethod
    def of(
        cls,
        unfitted: HistGradientBoostingClassifier | HistGradientBoostingRegressor,
        judged: JudgedPairs,
        target: Values,
    ) -> _Folded:
        """Fit the trees. All candidates of one subject or query are in one fold."""
        columns = np.flatnonzero(np.isfinite(judged.features).any(axis=0))
        features, raw, fold = judged.features[:, columns], np.zeros(len(judged)), np.zeros(len(judged), np.int64)
        rounded = rounded_to_bins(features, judged.weight)
        folds = GroupKFold(min(FOLDS, len(np.unique(judged.place)))).split(features, groups=judged.place)
        for number, (learnt, left_out) in enumerate(folds):
            fitted = clone(unfitted).fit(rounded[learnt], target[learnt], judged.weight[learnt])
            raw[left_out], fold[left_out] = raw_scores(fitted, features[left_out]), number
        return cls(clone(unfitted).fit(rounded, target, judged.weight), columns, target, fold, raw)

    def calibration(self, judged: JudgedPairs, settings: RelevanceSettings, without: int | None = None) -> Calibration:
        """Return the calibration by the labels of all folds, or of all but one."""
        rows = np.flatnonzero(self.fold != without) if without is not None else np.arange(len(judged))
        return Calibration.fit(
            self.raw[rows],
            self.target[rows],
            judged.weight[rows],
            cells=judged.cell.gather(rows),
            pooled_labels=settings.calibration_labels,
        )

    def trained(self, calibration: Calibration) -> Trees:
        return Trees(self.trees, self.columns, calibration)


def rounded_to_bins(features: NDArray[np.float32], weight: Values) -> NDArray[np.float32]:
    """Return features of which none has more than ``BINS`` values; each value becomes the nearest of these.

    The values are quantiles by ``weight`` [rows]. scikit-learn makes the bins of a weighted fit anew for each fit, and
    spends most of a small fit on that; a feature of few values has its bins. The edges lie in the middle between two
    values, so trees that learnt from rounded features read others.
    """
    rounded, middles = features.copy(), (np.arange(BINS) + 0.5) / BINS
    for column in rounded.T:
        known = np.isfinite(column)
        if len(np.unique(column[known])) > BINS:
            order = np.argsort(column[known], kind="stable")
            below = np.cumsum(weight[known][order])
            values = np.unique(column[known][order[np.searchsorted(below, middles * below[-1])]])
            column[known] = values[np.searchsorted((values[1:] + values[:-1]) / 2, column[known])]
    return rounded


def _unseen(trim: _Folded, auction: _Folded, judged: JudgedPairs, settings: RelevanceSettings) -> Verdicts:
    """Return the verdict on each label by trees, calibration and thresholds of the other folds."""
    relevant = judged.label >= settings.relevant_label
    scores, dropped = np.zeros((2, len(judged))), np.zeros(len(judged), bool)
    for number in np.unique(trim.fold):
        own, others = np.flatnonzero(trim.fold == number), np.flatnonzero(trim.fold != number)
        for row, folded in enumerate((trim, auction)):
            curve = folded.calibration(judged, settings, without=int(number))
            scores[row, own] = curve.of(folded.raw[own], judged.cell.gather(own))
        known, curve = judged.take(others), trim.calibration(judged, settings, without=int(number))
        thresholds = _thresholds(known, curve.of(trim.raw[others], known.cell), relevant[others], settings.trim_keeps)
        dropped[own] = scores[0, own] < thresholds_of(thresholds, judged.content_type.gather(own))
    return Verdicts(scores[0], scores[1], dropped)


def _thresholds(judged: JudgedPairs, scores: Values, relevant: NDArray[np.bool_], keeps: float) -> Mapping[str, float]:
    """Return the score below which the trim drops a candidate, so that ``keeps`` of the relevant ones stay.

    A content type with fewer than ``LEAST_RELEVANT`` relevant labels has the threshold of all together, ``unknown``.
    """
    thresholds = {UNKNOWN_TYPE: _lower_quantile(scores[relevant], judged.weight[relevant], 1 - keeps)}
    for content_type in judged.content_type.drop_nulls().unique().sort():
        own = relevant & (judged.content_type == content_type).fill_null(False).to_numpy()
        if own.sum() >= LEAST_RELEVANT:
            thresholds[content_type] = _lower_quantile(scores[own], judged.weight[own], 1 - keeps)
    return thresholds


def _lower_quantile(values: Values, weights: Values, share: float) -> float:
    """Return the largest value below which at most ``share`` of the weight lies."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(below, share)])

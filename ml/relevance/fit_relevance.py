"""Fits a relevance model to labels: trees, calibration on folds that they did not see, thresholds of the trim."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from ml.features.text import TextBasis
from ml.relevance.calibration import UNKNOWN_TYPE, Calibration
from ml.relevance.category_means import ContentWidths
from ml.relevance.judged_pairs import JudgedPairs
from ml.relevance.nothing_to_tell import NothingToTell
from ml.relevance.relevance_model import RelevanceModel, Trees, raw_scores
from settings import RelevanceSettings

Values = NDArray[np.float64]
FOLDS = 5
LEAST_RELEVANT = 100
"""Relevant labels with which a content type gets a threshold of its own."""
# Some thousand labels need no finer bins, and scikit-learn spends most of a weighted fit on them.
COMMON = {"max_bins": 64, "min_samples_leaf": 40, "early_stopping": False, "random_state": 0}
# Small, because each request waits for it.
TRIM = HistGradientBoostingClassifier(learning_rate=0.2, max_iter=30, max_leaf_nodes=15, **COMMON)
AUCTION = HistGradientBoostingRegressor(learning_rate=0.1, max_iter=60, max_leaf_nodes=8, **COMMON)


def fit_relevance(
    judged: JudgedPairs,
    settings: RelevanceSettings,
    *,
    version: str,
    trained_until: float,
    content_types: tuple[str, ...],
    text: TextBasis,
    widths: ContentWidths,
) -> RelevanceModel:
    """Fit both models to labels. All candidates of one subject or query are in one fold.

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
        trim, trimmed = _fit(TRIM, judged, relevant, settings)
        auction, _ = _fit(AUCTION, judged, judged.relevance, settings)
    return RelevanceModel(
        version=version,
        trained_until=trained_until,
        relevant_label=settings.relevant_label,
        trim=trim,
        auction=auction,
        thresholds=_thresholds(judged, trimmed, relevant > 0, settings.trim_keeps),
        content_types=content_types,
        text=text,
        widths=widths,
    )


def _fit(
    unfitted: HistGradientBoostingClassifier | HistGradientBoostingRegressor,
    judged: JudgedPairs,
    target: Values,
    settings: RelevanceSettings,
) -> tuple[Trees, Values]:
    """Return calibrated trees, and the calibrated score that each label's pair has from trees that did not see it."""
    columns = np.flatnonzero(np.isfinite(judged.features).any(axis=0))
    features = judged.features[:, columns]
    raw = np.zeros(len(judged))
    folds = GroupKFold(min(FOLDS, len(np.unique(judged.place))))
    for learnt, left_out in folds.split(features, groups=judged.place):
        fold = clone(unfitted).fit(features[learnt], target[learnt], judged.weight[learnt])
        raw[left_out] = raw_scores(fold, features[left_out])
    calibration = Calibration.fit(
        raw, target, judged.weight, cells=judged.cell, pooled_labels=settings.calibration_labels
    )
    trees = clone(unfitted).fit(features, target, judged.weight)
    return Trees(trees, columns, calibration), calibration.of(raw, judged.cell)


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

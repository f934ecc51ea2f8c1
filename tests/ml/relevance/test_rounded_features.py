"""The features that the relevance model's trees learn from: few values, each near the one that it stands for."""

from __future__ import annotations

import numpy as np

from ml.relevance.fit_relevance import BINS, rounded_to_bins


def test_a_feature_keeps_few_values_and_each_value_takes_the_nearest() -> None:
    random = np.random.default_rng(0)
    features = np.stack([random.normal(size=3_000), random.integers(0, BINS, 3_000)], axis=1).astype(np.float32)
    features[random.random(features.shape) < 0.1] = np.nan
    weight = np.where(features[:, 0] > 0, 5.0, 1.0)
    rounded = rounded_to_bins(features, weight)
    np.testing.assert_array_equal(np.isnan(rounded), np.isnan(features))
    np.testing.assert_array_equal(rounded[:, 1], features[:, 1])  # few values already
    known = ~np.isnan(features[:, 0])
    values = np.unique(rounded[known, 0])
    assert len(values) == BINS
    assert (values > 0).mean() > 0.75  # five sixths of the weight are there
    nearest = np.abs(features[known, :1] - values).min(axis=1)
    np.testing.assert_allclose(np.abs(features[known, 0] - rounded[known, 0]), nearest, atol=1e-6)


def test_features_without_a_row_stay_as_they_are() -> None:
    assert rounded_to_bins(np.zeros((0, 3), np.float32), np.zeros(0)).shape == (0, 3)

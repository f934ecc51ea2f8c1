"""Calibration by cell, and its error."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.relevance.calibration import Calibration, Curve, Values, calibration_error, reliability

RANDOM = np.random.default_rng(77)


def labels(scores: Values, chance: Values, seed: int = 0) -> Values:
    return (np.random.default_rng(seed).random(len(scores)) < chance).astype(float)


def test_a_bent_score_becomes_the_chance_that_it_stands_for() -> None:
    scores = RANDOM.random(20_000)
    curve = Curve.fit(scores, labels(scores, scores**2), np.ones(len(scores)))
    grid = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(curve.of(grid), grid**2, atol=0.04)


def test_calibration_never_makes_two_scores_equal_or_changes_their_order() -> None:
    scores = np.sort(RANDOM.random(500))
    curve = Curve.fit(scores, np.zeros(500), np.ones(500))  # level: every label is 0
    assert (np.diff(curve.of(scores)) > 0).all()


def test_a_cell_with_many_labels_has_its_own_curve_and_a_small_one_the_pooled() -> None:
    scores = RANDOM.random(10_200)
    cells = pl.Series(["search.shopping"] * 10_000 + ["search.video"] * 200)
    target = labels(scores, np.where(np.arange(10_200) < 10_000, scores, 0.5 * scores))
    fitted = Calibration.fit(scores, target, np.ones(10_200), cells=cells, pooled_labels=200)
    half = np.array([0.5])
    own = fitted.of(half, pl.Series(["search.shopping"]))[0]
    small, unknown = fitted.of(half, pl.Series(["search.video"]))[0], fitted.of(half, pl.Series(["other.video"]))[0]
    assert own == pytest.approx(0.5, abs=0.04)
    assert unknown == pytest.approx(fitted.pooled.of(half)[0])
    assert 0.25 < small < unknown  # half way between its own curve, at .25, and the pooled one
    assert fitted.cells["search.video"].weight == 0.5


def test_the_error_of_perfect_scores_is_nothing_whatever_the_noise_of_few_labels() -> None:
    errors = []
    for seed in range(60):
        scores = np.random.default_rng(seed).random(500)
        errors.append(calibration_error(scores, labels(scores, scores, seed + 1000), np.ones(500)))
    assert np.median(errors) <= 0.02


def test_a_shift_is_measured_at_its_size() -> None:
    scores = RANDOM.random(50_000) * 0.8
    found = calibration_error(scores, labels(scores, scores + 0.1), np.ones(50_000))
    assert found == pytest.approx(0.1, abs=0.01)


def test_a_weight_counts_as_so_many_labels() -> None:
    scores, target = np.array([0.1, 0.1, 0.9]), np.array([0.0, 1.0, 1.0])
    heavy = reliability(scores, target, np.array([3.0, 1.0, 1.0]))
    assert heavy["labels"].sum() == 3
    one = Curve.fit(np.full(4, 0.5), np.array([0.0, 0, 0, 1]), np.array([1.0, 1, 1, 5]))
    assert one.of(np.array([0.5]))[0] == pytest.approx(5 / 8, abs=0.2)


def test_too_few_labels_have_no_error() -> None:
    assert np.isnan(calibration_error(np.array([0.5]), np.array([1.0]), np.ones(1)))

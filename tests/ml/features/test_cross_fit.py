"""Cross-fitted content: what a fold may see, and that it means the same in all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import ortho_group

import ml.features.cross_fit
from ml.examples.period import Prepared, TrainingPeriod, cross_fitted, prepare_examples
from ml.features.content import build_content_basis
from ml.features.cross_fit import CrossFit, cross_fit, rotated_onto
from settings import Settings
from tests.ml.conftest import TRAINED_UNTIL
from tests.ml.worlds import instant, small_settings


@pytest.fixture(scope="module")
def known(period: TrainingPeriod) -> TrainingPeriod:
    return period.until(instant(TRAINED_UNTIL))


def folds_of(known: TrainingPeriod, prepared: Prepared, item: np.ndarray) -> CrossFit:
    """Cross-fitted content of the log with other items."""
    log = replace(prepared.dataset.log, item=item)
    return cross_fit(known.items.sort("item_id"), log, prepared.dataset.basis, folds=3, seed=0)


def test_a_fold_sees_nothing_of_its_own_users_and_all_of_the_others(known: TrainingPeriod, prepared: Prepared) -> None:
    """Change what one user did: the content of their own fold stays as it is, that of every other fold does not."""
    log = prepared.dataset.log
    before = folds_of(known, prepared, log.item)
    user = 17
    changed = log.item.copy()
    own = slice(log.offsets[user], log.offsets[user + 1])
    changed[own] = (changed[own] + 60) % len(prepared.dataset.features)
    after = folds_of(known, prepared, changed)
    np.testing.assert_array_equal(before.fold_of_user, after.fold_of_user)
    for fold in range(3):
        same = np.array_equal(before.content[fold], after.content[fold])
        assert same == (fold == before.fold_of_user[user])


def test_folds_are_about_equal_and_follow_the_seed(known: TrainingPeriod, prepared: Prepared) -> None:
    items, log, basis = known.items.sort("item_id"), prepared.dataset.log, prepared.dataset.basis
    first, again, other = (cross_fit(items, log, basis, folds=3, seed=seed).fold_of_user for seed in (0, 0, 1))
    assert np.bincount(first).min() > 0.2 * log.users
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_rotation_brings_the_graph_of_a_fold_nearer_to_the_one_that_serves(
    known: TrainingPeriod, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an encoder has learnt of one fold's content has to mean the same under the content that serves."""
    whole, item = prepared.dataset.features.content, prepared.dataset.log.item
    rotated = folds_of(known, prepared, item)
    monkeypatch.setattr(ml.features.cross_fit, "rotated_onto", lambda _, vectors: vectors)
    as_they_come = folds_of(known, prepared, item)
    for near, far in zip(rotated.content, as_they_come.content, strict=True):
        both = whole.any(axis=1) & near.any(axis=1)
        agreement = (whole[both] * near[both]).sum(axis=1).mean()
        assert agreement > 0.6  # the planted world is clear enough for the folds' graphs to agree
        assert agreement > (whole[both] * far[both]).sum(axis=1).mean() + 0.1


def test_the_rotation_undoes_a_rotation() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=(50, 6)).astype(np.float32)
    target[4] = 0
    turned = (target @ ortho_group.rvs(6, random_state=0)).astype(np.float32)
    np.testing.assert_allclose(rotated_onto(target, turned), target, atol=1e-5)
    assert not np.allclose(turned, target, atol=0.1)
    nothing = np.zeros((50, 6), np.float32)
    np.testing.assert_array_equal(rotated_onto(nothing, turned), turned)


def test_one_fold_is_no_cross_fitting(known: TrainingPeriod) -> None:
    settings = small_settings(features={"content_dimensions": 8, "cross_fit_folds": 1})
    prepared = cross_fitted(prepare_examples(known, settings), known, settings)
    assert prepared.folds.folds == 1
    np.testing.assert_array_equal(prepared.folds.content[0], prepared.dataset.features.content)


def test_cross_fitted_content_of_given_embeddings_keeps_them(
    known: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    """Given embeddings know nothing of who engaged with what: only the graph part differs between folds."""
    items = known.items.sort("item_id")
    given = np.random.default_rng(1).normal(size=(len(items), 5)).astype(np.float32)
    items = items.with_columns(pl.Series("embedding", given).cast(pl.List(pl.Float32)))
    log = prepared.dataset.log
    basis = build_content_basis(items, log, settings.features, 0)
    assert (basis.graph_width, basis.given_width) == (8, 5)
    folds = cross_fit(items, log, basis, folds=2, seed=0)
    whole, _ = basis.content_of(items)
    in_graph = whole[:, :8].any(axis=1)
    for content in folds.content:
        both = in_graph & content[:, :8].any(axis=1)
        np.testing.assert_allclose(content[both, 8:], whole[both, 8:], atol=1e-6)
        assert not np.allclose(content[both, :8], whole[both, :8])

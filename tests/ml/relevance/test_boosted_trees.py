"""The trees of a fit as arrays: the same answers to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.relevance.boosted_trees import BoostedTrees
from ml.relevance.fit_relevance import AUCTION, TRIM


@pytest.mark.parametrize("unfitted", [TRIM, AUCTION], ids=["classifier", "regression"])
@pytest.mark.parametrize("rows", [4_500, 300])
def test_the_arrays_answer_as_scikit_learn_does(unfitted: Any, rows: int, tmp_path: Path) -> None:
    random = np.random.default_rng(rows)
    features = random.normal(size=(rows, 6)).astype(np.float32)
    features[random.random(features.shape) < 0.2] = np.nan
    target = np.nansum(features[:, :3], axis=1) + random.normal(size=rows)
    fitted = unfitted.__class__(**unfitted.get_params())
    fitted.fit(features, target > 0 if unfitted is TRIM else target, random.random(rows))
    expected = fitted.predict_proba(features)[:, 1] if unfitted is TRIM else fitted.predict(features)
    BoostedTrees.of(fitted).save(tmp_path / "trees.npz")
    loaded = BoostedTrees.load(tmp_path / "trees.npz")
    np.testing.assert_array_equal(loaded.predict(features), expected)
    np.testing.assert_array_equal(loaded.predict(features[:7]), expected[:7])
    assert loaded.predict(features[:0]).shape == (0,)
    unknown = np.full((1, 6), np.nan, np.float32)
    np.testing.assert_array_equal(
        loaded.predict(unknown),
        fitted.predict_proba(unknown)[:, 1] if unfitted is TRIM else fitted.predict(unknown),
    )

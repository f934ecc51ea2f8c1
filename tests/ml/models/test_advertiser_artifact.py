"""A saved advertiser model, and the lists that it makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from ml.examples.advertiser_period import (
    AdvertiserData,
    AdvertiserPeriod,
)
from ml.models.advertiser_artifact import AdvertiserArtifact, advertiser_embeddings, candidates
from ml.models.advertiser_model import AdvertiserNetwork
from ml.training.fit import Fit
from tests.ml.shops import SETTINGS
from tests.ml.worlds import (
    EVENT_NAMES,
    instant,
)


def test_an_artefact_answers_as_before_it_was_saved(
    planted: AdvertiserPeriod, data: AdvertiserData, fitted: Fit[AdvertiserNetwork], tmp_path: Path
) -> None:
    artifact = AdvertiserArtifact(fitted.network, data.dataset.basis, SETTINGS, EVENT_NAMES, instant(85))
    artifact.save(tmp_path / "model")
    loaded = AdvertiserArtifact.load(tmp_path / "model")
    period = planted.period
    one, other = (advertiser_embeddings(each, period.events, period.items, instant(85)) for each in (artifact, loaded))
    assert_frame_equal(one, other, abs_tol=1e-5)
    assert one["advertiser_id"].equals(planted.advertiser_ids, check_names=False)
    assert one["items"].max() == 20
    lengths = np.linalg.norm(np.array(one["embedding"].to_list()), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_candidates_are_the_nearest_advertisers_best_first() -> None:
    index = pl.DataFrame({"advertiser_id": ["a", "b", "c"]})
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[1, 0], [0, 1]], np.float32)
    found = candidates(pl.Series(["u", "v"]), users, index, vectors=vectors, depth=2)
    assert found["user_id"].to_list() == ["u", "v"]
    assert found["advertiser_ids"].to_list() == [["a", "c"], ["b", "c"]]
    np.testing.assert_allclose(found["scores"].to_list(), [[1, 0.6], [1, 0.8]], rtol=1e-6)
    none = candidates(pl.Series([], dtype=pl.String), np.zeros((0, 2), np.float32), index, vectors=vectors, depth=2)
    assert len(none) == 0

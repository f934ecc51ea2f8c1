"""The reports ask a model about a search exactly as the service does."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.examples.named_interests import search_context
from ml.features.content import category_nodes
from ml.models.batched_forward import embed_users
from ml.models.tensors import CatalogueTensors
from serving.publication import Served


@pytest.mark.slow
def test_the_same_query_gives_the_same_user_embedding(served: Served, catalogue: pl.DataFrame) -> None:
    features = served.catalogue.features
    names = category_nodes(catalogue["category_path"]).explode().drop_nulls().unique().sort()
    typed = [*(name.split(" > ")[-1].lower() for name in names), *catalogue["title"].drop_nulls()[:20], "0000"]
    items = catalogue.select("title", category="category_path", interests="stated_interests")
    random = np.random.default_rng(0)
    states = random.normal(size=(len(typed), served.artifact.network.state_width)).astype(np.float32)
    demographics = random.integers(0, 3, (len(typed), 3))
    context = search_context(pl.Series(typed), items, features, served.artifact.settings.features.category_buckets)
    reported = embed_users(
        served.artifact.network, CatalogueTensors(features), states, context=context, demographics=demographics
    )
    assert served.matcher is not None
    for row, query in enumerate(typed):
        asked = served.context(None, served.matcher.interests(query))
        answered = served.embed(states[row], asked, demographics[row : row + 1])
        np.testing.assert_allclose(reported[row], answered, atol=1e-6)
    assert context.present.mean() > 0.9
    assert np.ptp(reported, axis=0).max() > 0.1

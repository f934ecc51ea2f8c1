"""The reports ask a model about a search exactly as the service does, and a training learns from the same context."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from ml.examples.context import no_context
from ml.examples.named_interests import Searches, search_context
from ml.features.content import category_nodes
from ml.features.items import MAXIMUM_INTERESTS
from ml.models.batched_forward import embed_users
from ml.models.request_head import RequestContext
from ml.models.tensors import CatalogueTensors
from serving.publication import Served


@pytest.mark.slow
def test_the_same_query_gives_the_same_user_embedding(served: Served, catalogue: pl.DataFrame) -> None:
    features = served.catalogue.features
    names = category_nodes(catalogue["category_path"]).explode().drop_nulls().unique().sort()
    nouns = [name.split(" > ")[-1].lower() for name in names]
    typed = [*nouns, *(f"rustic {noun}" for noun in nouns), *catalogue["title"].drop_nulls()[:20], "0000"]
    items = catalogue.select("title", category="category_path", interests="stated_interests")
    random = np.random.default_rng(0)
    states = random.normal(size=(len(typed), served.artifact.network.state_width)).astype(np.float32)
    demographics = random.integers(0, 3, (len(typed), 3))
    basis, buckets = served.artifact.basis, served.artifact.settings.features.category_buckets
    context = search_context(pl.Series(typed), items, features, basis=basis, buckets=buckets)
    reported = embed_users(
        served.artifact.network, CatalogueTensors(features), states, context=context, demographics=demographics
    )
    assert served.matcher is not None
    for row, query in enumerate(typed):
        asked = served.context(None, served.matcher.interests(query), query)
        answered = served.embed(states[row], asked, demographics[row])
        np.testing.assert_allclose(reported[row], answered, atol=1e-6)
    assert context.present.mean() > 0.9
    assert np.ptp(reported, axis=0).max() > 0.1
    assert basis.text.width > 0
    assert not np.allclose(reported[0], reported[len(nouns)], atol=1e-3)  # the adjective counts


def test_a_training_shows_a_search_as_the_service_does(served: Served, catalogue: pl.DataFrame) -> None:
    features, basis = served.catalogue.features, served.artifact.basis
    typed = pl.Series(["rustic fern", None, "0000", *catalogue["title"].drop_nulls()[:5]])
    items = catalogue.select("title", category="category_path", interests="stated_interests")
    buckets = served.artifact.settings.features.category_buckets
    searches = Searches.of(typed, items, [features], basis=basis, buckets=buckets)
    nothing = no_context(len(typed), MAXIMUM_INTERESTS)
    trained = CatalogueTensors(features).context(searches.over(nothing, np.arange(len(typed)), 0))
    assert served.matcher is not None
    for row, query in enumerate(typed):
        asked = served.context(None, served.matcher.interests(query) if query else {}, query)
        for field in dataclasses.fields(RequestContext):
            one, other = getattr(trained, field.name)[row], getattr(asked, field.name)
            np.testing.assert_allclose(one.numpy(), other, atol=1e-6, err_msg=field.name)

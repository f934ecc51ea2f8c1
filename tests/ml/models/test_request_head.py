"""The head of one request in numpy is the network's head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.examples.context import NO_SUBJECT, Context, Topics
from ml.examples.period import Prepared
from ml.models.encoders import ModelShape
from ml.models.item_model import ContextBatch, TwoTower
from ml.models.request_head import RequestContext, RequestHead
from ml.models.tensors import CatalogueTensors
from settings import Fusion
from tests.ml.worlds import small_settings

BUCKETS, HASHES, LEVELS, INTERESTS = 32, 2, 4, 4
WIDTHS = st.integers(0, 9)


@st.composite
def networks(draw: st.DrawFn) -> TwoTower:
    """A head of any shape, whose every weight is random, also those of rows that mean nothing."""
    width = draw(st.sampled_from([8, 16, 24]))
    shape = ModelShape(
        graph=draw(WIDTHS),
        given=draw(WIDTHS),
        text=draw(WIDTHS),
        statistics=3,
        positions=5,
        popularity=draw(st.sampled_from([0, 4])),
    )
    settings = small_settings(
        model={
            "width": width,
            "fusion": draw(st.sampled_from(Fusion)),
            "fusion_events": draw(st.integers(1, 5)),
            "trait_dimensions": draw(st.integers(2, 9)),
            "dropout": 0.3,
        },
        features={"category_buckets": BUCKETS, "advertiser_buckets": BUCKETS, "advertiser_hashes": HASHES},
    )
    network = TwoTower(shape, settings.model, settings.features, settings.training.temperature).eval()
    random = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    size = draw(st.sampled_from([0.1, 0.5, 2.0]))
    with torch.no_grad():
        for parameter in network.parameters():
            inputs = parameter.shape[-1] if parameter.ndim else 1
            parameter.copy_(torch.randn(parameter.shape, generator=random) * size * max(inputs, 1) ** -0.5)
    return network


def request_of(network: TwoTower, random: np.random.Generator, unknown: float) -> tuple[Any, RequestContext, Any]:
    """State, context and demographics; each part of them is ``unknown`` by this chance."""

    def zero_or(values: NDArray[Any]) -> NDArray[Any]:
        return np.zeros_like(values) if random.random() < unknown else values

    def ids(count: int) -> NDArray[np.int64]:
        return zero_or(random.integers(0, BUCKETS, count))

    layout = network.encoder.layout
    events = random.standard_normal((layout.events, layout.width)).astype(np.float32)
    events[: random.integers(0, layout.events + 1)] = 0  # fewer events than the state holds
    state = random.standard_normal(layout.size).astype(np.float32)
    state[layout.width + layout.memory :] = events.ravel()
    state[layout.width :][: network.shape.content] = zero_or(state[layout.width :][: network.shape.content])
    context = RequestContext(
        content=zero_or(random.standard_normal(network.shape.content).astype(np.float32)),
        category=ids(LEVELS),
        advertiser=ids(HASHES),
        interests=ids(INTERESTS),
        confidence=zero_or(random.random(INTERESTS).astype(np.float32)),
        present=bool(random.random() >= unknown),
    )
    return zero_or(state), context, ids(3)


def of_network(network: TwoTower, state: Any, context: RequestContext, demographics: Any) -> NDArray[np.float32]:
    batch = ContextBatch(**{name: torch.from_numpy(np.asarray(value)[None]) for name, value in vars(context).items()})
    with torch.inference_mode():
        found: NDArray[np.float32] = network.head(
            torch.from_numpy(state[None]), batch, torch.from_numpy(demographics[None])
        ).numpy()
    return found[0]


@given(network=networks(), seed=st.integers(0, 1 << 30), unknown=st.sampled_from([0.0, 0.3, 1.0]))
@of_hypothesis(max_examples=150, deadline=None)
def test_it_is_the_head_of_the_network(network: TwoTower, seed: int, unknown: float) -> None:
    random, head = np.random.default_rng(seed), RequestHead.of(network.head)
    for _ in range(5):
        state, context, demographics = request_of(network, random, unknown)
        found, expected = head(state, context, demographics), of_network(network, state, context, demographics)
        assert found.dtype == np.float32
        # Relative to the whole: the length of a part is exponential in the weights.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, float(np.linalg.norm(expected))))


def test_a_head_is_frozen(prepared: Prepared) -> None:
    settings = small_settings()
    shape = ModelShape.of(prepared.dataset.basis, prepared.dataset.statistics.width, settings.sequences.length)
    network = TwoTower(shape, settings.model, settings.features, settings.training.temperature).eval()
    head = RequestHead.of(network.head)
    asked = (
        np.ones(network.state_width, np.float32),
        RequestContext.beside(3, prepared.dataset.features),
        np.ones(3, int),
    )
    before = head(*asked)
    with torch.no_grad():
        network.head.shortcut.weight.add_(1.0)
    np.testing.assert_array_equal(head(*asked), before)
    assert np.abs(RequestHead.of(network.head)(*asked) - before).max() > 0.01


def test_a_context_of_one_request_is_that_of_many(prepared: Prepared) -> None:
    """A subject, a topic in place of one, both, and nothing."""
    features = prepared.dataset.features
    random = np.random.default_rng(0)
    named = random.integers(0, 2, (4, INTERESTS))
    topics = Topics(
        random.random((4, features.content.shape[1])).astype(np.float32) * named[:, :1].astype(np.float32),
        random.integers(0, 9, (4, LEVELS)),
    )
    for subject in (np.array([3, NO_SUBJECT, 5, NO_SUBJECT]), np.full(4, NO_SUBJECT)):
        many = Context(subject, named, named.astype(np.float32), topics)
        expected = CatalogueTensors(features).context(many)
        for row in range(4):
            found = RequestContext.of(many.take(np.array([row])), features)
            for name, value in vars(found).items():
                np.testing.assert_array_equal(value, getattr(expected, name)[row].numpy(), err_msg=name)

"""A popularity weight moves every score by the same rule, in every path that makes scores, and needs no training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.evaluation.metrics import share_for_90_percent
from ml.evaluation.model_lists import embeddings_of_states, states_of, trained_lists
from ml.evaluation.popularity_front import lists_by_weight
from ml.evaluation.queries import EvaluationSet, Queries, on_the_home_feed, subject_appended
from ml.examples.context import no_context
from ml.examples.period import Prepared
from ml.features.items import MAXIMUM_INTERESTS
from ml.models.artifact import CHECKSUMS, DESCRIPTION, ModelArtifact
from ml.models.batched_forward import popularity_weight
from ml.models.item_model import POPULARITY_WIDTH, TwoTower
from ml.retrieval.lists import Ragged
from ml.training.fit import Fit
from settings import IndexSettings
from tests.ml.worlds import instant, small_settings


@pytest.fixture(scope="module")
def asked(prepared: Prepared) -> EvaluationSet:
    """Forty users on the home feed."""
    dataset = prepared.dataset
    nobody = np.zeros(0, np.int64)
    queries = Queries(
        user=nobody,
        history_end=nobody,
        context=no_context(0, MAXIMUM_INTERESTS),
        positives=Ragged.from_pairs([], [], 0),
        exclude=None,
        candidates=np.arange(len(dataset.features)),
        as_of=instant(80),
    )
    return on_the_home_feed(EvaluationSet(dataset, queries, dataset.log, 7.0), np.arange(40))


def embedded(network: TwoTower, asked: EvaluationSet, weight: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    settings = small_settings(index={"popularity_weight": weight})
    return embeddings_of_states(network, asked, states_of(network, asked, settings), settings)


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_a_score_loses_the_same_for_every_user(asked: EvaluationSet, trained: Fit[TwoTower], weight: float) -> None:
    (users, before), (again, after) = (embedded(trained.network, asked, each) for each in (0.0, weight))
    np.testing.assert_array_equal(again, users)
    lost = users @ before.T - users @ after.T
    np.testing.assert_allclose(lost, np.broadcast_to(lost[0], lost.shape), atol=2e-5)
    assert lost.min() > -1e-5
    assert lost.max() > weight * trained.network.temperature.item()
    np.testing.assert_array_equal(after[:, :-POPULARITY_WIDTH], before[:, :-POPULARITY_WIDTH])


def test_more_weight_spreads_the_lists_over_more_items(asked: EvaluationSet, trained: Fit[TwoTower]) -> None:
    settings = small_settings(index={"popularity_weight": 0.0})
    lists = lists_by_weight(trained.network, asked, settings, weights=(0.0, 0.5, 2.0), depth=100)
    assert np.array_equal(lists[0.0].items, trained_lists(trained.network, asked, settings, 100).items)
    spread = [share_for_90_percent(each.items, len(asked.queries.candidates)) for each in lists.values()]
    assert spread[0] < spread[1] < spread[2]


def test_the_width_suits_a_product_quantiser() -> None:
    """The other parts are multiples of four by default; a quantiser wants codes of equal width."""
    assert POPULARITY_WIDTH % 4 == 0


def test_a_model_of_the_format_before_answers_as_before_whatever_the_weight(
    artifact: ModelArtifact, asked: EvaluationSet, tmp_path: Path
) -> None:
    artifact.save(tmp_path)
    path = tmp_path / DESCRIPTION
    description = json.loads(path.read_text())
    description["format"] = 6
    assert description["shape"].pop("popularity") == POPULARITY_WIDTH
    del description["settings"]["index"]["popularity_weight"]
    path.write_text(json.dumps(description))
    (tmp_path / CHECKSUMS).unlink()
    loaded = ModelArtifact.load(tmp_path).network
    assert loaded.embedding_width == artifact.network.embedding_width - POPULARITY_WIDTH
    asked_before, asked_now = embedded(loaded, asked, 0.0), embedded(artifact.network, asked, 0.0)
    for one, other in zip(asked_before, asked_now, strict=True):
        np.testing.assert_allclose(one, other[:, :-POPULARITY_WIDTH], atol=1e-6)
    assert popularity_weight(loaded, IndexSettings(popularity_weight=0.1)) == 0
    np.testing.assert_array_equal(embedded(loaded, asked, 0.1)[1], asked_before[1])


def test_all_ways_to_ask_share_the_offsets(asked: EvaluationSet, trained: Fit[TwoTower]) -> None:
    """Also where each query gets a log of its own: a service has one index."""
    appended, one = subject_appended(asked, "checkout"), asked.take(np.arange(1))
    _, expected = embedded(trained.network, asked, 0.5)
    for other in (appended, one):
        np.testing.assert_array_equal(embedded(trained.network, other, 0.5)[1], expected)

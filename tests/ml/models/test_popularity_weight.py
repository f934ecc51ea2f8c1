"""A popularity weight moves every score by the same rule, in every path that makes scores, and needs no training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml.evaluation.model_lists import trained_lists
from ml.evaluation.popularity_front import lists_by_weight
from ml.evaluation.queries import EvaluationSet, Queries
from ml.examples.context import no_context
from ml.examples.period import Prepared
from ml.features.items import DAY, MAXIMUM_INTERESTS, recent_popularity
from ml.models.artifact import CHECKSUMS, DESCRIPTION, ModelArtifact
from ml.models.batched_forward import PopularityUnknown, embed_items_for_search, embed_users
from ml.models.item_model import POPULARITY_WIDTH, TwoTower
from ml.models.tensors import CatalogueTensors
from ml.retrieval.lists import Ragged
from ml.training.fit import Fit
from settings import Settings
from tests.ml.worlds import instant, small_settings

WINDOW_DAYS = 7.0


def with_weight(weight: float) -> Settings:
    return small_settings(index={"popularity_weight": weight})


def embedded(network: TwoTower, prepared: Prepared, weight: float) -> NDArray[np.float32]:
    dataset = prepared.dataset
    return embed_items_for_search(
        network,
        CatalogueTensors(dataset.features),
        dataset.statistics.at(instant(50)),
        settings=with_weight(weight),
        window_days=WINDOW_DAYS,
    )


@given(weight=st.floats(0, 2, allow_nan=False))
def test_a_score_loses_the_weight_times_the_temperature_times_the_popularity(
    prepared: Prepared, trained: Fit[TwoTower], weight: float
) -> None:
    network, dataset = trained.network, prepared.dataset
    users = dataset.log.users
    states = np.random.default_rng(0).standard_normal((users, network.state_width)).astype(np.float32)
    asked = embed_users(
        network,
        CatalogueTensors(dataset.features),
        states,
        context=no_context(users, MAXIMUM_INTERESTS),
        demographics=dataset.demographics,
    )
    # Counted by hand: events of the seven days before, of each item.
    log, until = dataset.log.offsite, instant(50)
    recent = (dataset.log.seconds < until) & (dataset.log.seconds >= until - WINDOW_DAYS * DAY) & (log.item >= 0)
    popularity = np.log1p(np.bincount(log.item[recent], minlength=len(dataset.features)))
    before, after = (asked @ embedded(network, prepared, each).T for each in (0.0, weight))
    np.testing.assert_allclose(after, before - weight * network.temperature.item() * popularity, atol=2e-5)


@pytest.mark.parametrize(
    ("window_days", "column"), [(0.5, 0), (1, 0), (1.5, 1), (28, 1), (29, 2)], ids=lambda value: f"{value}"
)
def test_popularity_counts_the_shortest_window_that_holds_a_label_window(window_days: float, column: int) -> None:
    statistics = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert recent_popularity(statistics, [1, 28], window_days).tolist() == statistics[:, column].tolist()


def test_more_weight_shows_less_popular_items(prepared: Prepared, trained: Fit[TwoTower]) -> None:
    users = np.arange(40)
    context = no_context(len(users), MAXIMUM_INTERESTS)
    dataset = prepared.dataset
    queries = Queries(
        user=users,
        history_end=dataset.log.known_until(instant(80))[users],
        context=context,
        positives=Ragged.from_pairs([], [], len(users)),
        exclude=None,
        candidates=np.arange(len(dataset.features)),
        as_of=instant(80),
    )
    asked = EvaluationSet(dataset, queries, dataset.log, WINDOW_DAYS)
    popular = asked.events_of_items(asked.recent_days)[asked.queries.candidates]
    lists = lists_by_weight(trained.network, asked, small_settings(), weights=(0.0, 0.3, 2.0), depth=10)
    assert np.array_equal(lists[0.0].items, trained_lists(trained.network, asked, small_settings(), depth=10).items)
    seen = [popular[each.items].mean() for each in lists.values()]
    assert seen[0] > seen[1] > seen[2]


def test_the_width_suits_a_product_quantiser() -> None:
    """The other parts are multiples of four by default; a quantiser wants codes of equal width."""
    assert POPULARITY_WIDTH % 4 == 0


def test_a_model_of_the_format_before_answers_as_before_and_refuses_a_weight(
    artifact: ModelArtifact, prepared: Prepared, tmp_path: Path
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
    now = embedded(artifact.network, prepared, 0.0)
    np.testing.assert_allclose(embedded(loaded, prepared, 0.0), now[:, :-POPULARITY_WIDTH], atol=1e-6)
    with pytest.raises(PopularityUnknown, match=r"popularity_weight is 0\.1.*adseq run --retrain"):
        embedded(loaded, prepared, 0.1)

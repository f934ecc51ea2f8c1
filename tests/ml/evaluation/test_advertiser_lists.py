"""The lists of the advertiser generator: by hand, and of two trained models."""

from __future__ import annotations

import dataclasses

import numpy as np

from ml.evaluation.advertiser_lists import advertiser_lists, items_of_predicted, predicted_advertisers
from ml.evaluation.advertiser_queries import AdvertiserQueries, query_lists
from ml.evaluation.queries import EvaluationSet, Queries
from ml.examples.advertiser_period import AdvertiserData, AdvertiserPeriod
from ml.examples.context import subject_context
from ml.examples.period import whole_log
from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.artifact import ModelArtifact
from ml.retrieval.lists import Ragged
from ml.training.fit import Fit
from tests.ml.conftest import TRAINED_UNTIL
from tests.ml.shops import SETTINGS
from tests.ml.worlds import EVENT_NAMES, instant


def test_the_lists_by_hand() -> None:
    """Advertiser 0 has the items 0, 1 and 2, advertiser 1 has 3, advertiser 2 has 4; nobody knows whose item 5 is."""
    of_item = np.array([0, 0, 0, 1, 2, -1])
    items = np.array([[0.1], [0.2], [0.3], [0.9], [0.8], [1.0]], np.float32)
    predicted = np.array([[0, 1], [2, 0], [-1, -1], [1, 2]])
    users = np.array([[1.0], [-1.0], [1.0], [1.0]], np.float32)
    exclude = Ragged.from_pairs([0, 3], [2, 3], queries=4)
    found = items_of_predicted(predicted, of_item, users=users, items=items, exclude=exclude, quota=2, depth=3)
    # 0 looks at item 2; 1 likes the opposite; of 2 no advertiser is known; 3 looks at the only item of its first one.
    assert found.items.tolist() == [[3, 1, 0], [0, 1, 4], [-1, -1, -1], [4, -1, -1]]
    assert found.scores[0].tolist() == items[[3, 1, 0], 0].tolist()
    without = items_of_predicted(predicted, of_item, users=users, items=items, exclude=None, quota=1, depth=3)
    assert without.items.tolist() == [[3, 2, -1], [0, 4, -1], [-1, -1, -1], [3, 4, -1]]


def test_the_advertisers_are_those_of_the_service_and_a_user_without_history_has_none(
    planted: AdvertiserPeriod, data: AdvertiserData, fitted: Fit[AdvertiserNetwork], queries: AdvertiserQueries
) -> None:
    artifact = AdvertiserArtifact(fitted.network, data.dataset.basis, SETTINGS, EVENT_NAMES, instant(85))
    log = whole_log(planted.period, SETTINGS)
    asked = Queries(
        user=np.append(queries.user, [-1, queries.user[0]]),
        history_end=np.append(queries.history_end, [0, log.offsets[queries.user[0]]]),  # the last one as of the start
        context=subject_context(np.full(len(queries) + 2, -1), data.dataset.features),
        positives=Ragged.from_pairs([], [], len(queries) + 2),
        exclude=None,
        candidates=np.arange(len(data.dataset.features)),
        as_of=instant(85),
    )
    found = predicted_advertisers(artifact, data, asked, period=planted.period, depth=5)
    expected = queries.index[query_lists(fitted.network, queries, SETTINGS, 5).items]
    assert np.array_equal(found[:-2], expected)
    assert (found[-2:] == -1).all()


def test_every_item_is_of_a_predicted_advertiser_and_the_request_orders_them(
    planted: AdvertiserPeriod,
    data: AdvertiserData,
    fitted: Fit[AdvertiserNetwork],
    artifact: ModelArtifact,
    queries: AdvertiserQueries,
) -> None:
    of_advertisers = AdvertiserArtifact(fitted.network, data.dataset.basis, SETTINGS, EVENT_NAMES, instant(85))
    period = planted.period
    dataset = dataclasses.replace(
        artifact.dataset(period.until(instant(TRAINED_UNTIL))), log=whole_log(period, artifact.settings)
    )
    twice = np.repeat(queries.user[:1], 2)
    best = query_lists(fitted.network, queries, SETTINGS, 2).items[0]  # the user looks at an item of each of the two
    subject = np.array([np.flatnonzero(data.advertisers.of_item == row)[0] for row in queries.index[best]])
    asked = EvaluationSet(
        dataset,
        Queries(
            user=twice,
            history_end=np.repeat(queries.history_end[:1], 2),
            context=subject_context(subject, dataset.features),
            positives=Ragged.from_pairs([], [], 2),
            exclude=Ragged.from_pairs([0, 1], subject, queries=2),
            candidates=np.arange(len(dataset.features)),
            as_of=instant(85),
        ),
        dataset.log,
        10.0,
    )
    found = advertiser_lists(artifact, of_advertisers, asked, period=period, advertisers=2, quota=3, depth=10)
    predicted = predicted_advertisers(of_advertisers, data, asked.queries, period=period, depth=2)
    for items, own, hidden in zip(found.items, predicted, subject, strict=True):
        shown = items[items >= 0]
        assert len(shown) == 6
        assert set(data.advertisers.of_item[shown].tolist()) == set(own.tolist())
        assert hidden not in shown
    assert [data.advertisers.of_item[items[0]] for items in found.items] == predicted[
        0
    ].tolist()  # one user, two places

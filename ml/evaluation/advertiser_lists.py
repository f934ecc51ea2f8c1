"""What the service's advertiser generator proposes for requests, by models that learnt until the measured window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.model_lists import embeddings_of_states, states_of
from ml.evaluation.queries import EvaluationSet, Queries, with_log
from ml.examples.advertiser_period import AdvertiserData, AdvertiserPeriod
from ml.examples.period import TrainingPeriod, whole_log
from ml.features.event_log import newest, within_lookback
from ml.features.items import DAY
from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.models.artifact import ModelArtifact
from ml.models.batched_forward import embed_advertisers, embed_histories
from ml.models.tensors import CatalogueTensors
from ml.retrieval.advertiser_items import best_of_advertisers
from ml.retrieval.lists import NO_ITEM, SCORES_IN_MEMORY, Ragged, RankedLists, search

NOTHING = np.zeros(0, np.int64)


def advertiser_lists(
    item_model: ModelArtifact,
    advertiser_model: AdvertiserArtifact,
    asked: EvaluationSet,
    *,
    period: TrainingPeriod,
    advertisers: int,
    quota: int,
    depth: int,
) -> RankedLists:
    """Return the items of each user's predicted advertisers, in the order in which the service proposes them.

    As in the service, the advertisers are those of the user's history, and the item model ranks their items for the
    whole request, its context included.

    Args:
        item_model: the contextual model. Neither model may have learnt beyond ``asked.queries.as_of``.
        period: reaches to the end of the window of the queries.
        advertisers: so many are predicted for a user. quota: at most so many items of an advertiser.
        depth: of the lists.
    """
    queries = asked.queries
    data = advertiser_model.data(AdvertiserPeriod.of(period).until(queries.as_of))
    settings = item_model.settings
    states = states_of(item_model.network, asked, settings)
    users, items = embeddings_of_states(item_model.network, asked, states, settings)
    return items_of_predicted(
        predicted_advertisers(advertiser_model, data, queries, period=period, depth=advertisers),
        data.advertisers.of_item[queries.candidates],
        users=users,
        items=items,
        exclude=queries.exclude,
        quota=quota,
        depth=depth,
    )


def predicted_advertisers(
    model: AdvertiserArtifact, data: AdvertiserData, queries: Queries, *, period: TrainingPeriod, depth: int
) -> NDArray[np.int64]:
    """Return the best known advertisers of each query's user, best first, as rows of ``data`` [queries, depth].

    A user without an event before the query has none (-1).

    Args:
        data: as known at ``queries.as_of``. period: its log is that of the queries.
    """
    log = whole_log(period, model.settings)
    dataset = with_log(data.dataset, log)
    user, end = np.maximum(queries.user, 0), np.where(queries.user >= 0, queries.history_end, 0)
    end = np.maximum(end, log.offsets[user])
    since = queries.as_of - model.settings.sequences.lookback_days * DAY
    slices = within_lookback(log, user, newest(log, user, end, model.settings.sequences.length), since)
    users = embed_histories(
        model.network,
        CatalogueTensors(dataset.features),
        log,
        slices=slices,
        demographics=dataset.users_demographics(queries.user),
        settings=model.settings.inference,
    )
    known = data.advertisers.known(queries.as_of)
    found = search(users, embed_advertisers(model.network, data.advertisers.at(queries.as_of).take(known)), depth).items
    has_history = (queries.user >= 0) & (slices.lengths > 0)
    return np.where((found != NO_ITEM) & has_history[:, None], known[found], -1)


def items_of_predicted(
    predicted: NDArray[np.int64],
    of_item: NDArray[np.int64],
    *,
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    exclude: Ragged | None,
    quota: int,
    depth: int,
) -> RankedLists:
    """Return the best items of the predicted advertisers of each query.

    Args:
        predicted: [queries, advertisers] rows, -1 = none. of_item: [items] the advertiser of each item, -1 = unknown.
        users: [queries, width]. items: [items, width].
        exclude: items that a query may not retrieve.
        quota: at most so many items of an advertiser.

    Of two advertisers with two items each, the first one is predicted for the query, which looks at item 0:

    >>> items_of_predicted(
    ...     np.array([[0]]), np.array([0, 0, 1, 1]), users=np.ones((1, 1)), items=np.ones((4, 1)),
    ...     exclude=Ragged.from_pairs([0], [0], queries=1), quota=3, depth=2,
    ... ).items.tolist()
    [[1, -1]]
    """
    named = np.flatnonzero(of_item >= 0)
    order = named[np.argsort(of_item[named], kind="stable")]
    starts = np.searchsorted(of_item[order], np.arange(int(predicted.max(initial=-1)) + 2))
    owned = [order[start:stop] for start, stop in pairwise(starts.tolist())]
    rows = np.full((len(predicted), depth), NO_ITEM, np.int64)
    scores = np.full((len(predicted), depth), -np.inf, np.float32)
    allowed, size = np.ones(len(of_item), bool), max(1, SCORES_IN_MEMORY // max(1, len(items)))
    for query, listed in enumerate(predicted):
        if query % size == 0:  # one product for many queries is faster than a product a query
            fit = users[query : query + size] @ items.T
        of_query = fit[query % size]
        hidden = exclude.items[exclude.offsets[query] : exclude.offsets[query + 1]] if exclude else NOTHING
        hidden = hidden[hidden != NO_ITEM]
        allowed[hidden] = False
        found, fits = best_of_advertisers(
            [owned[row][allowed[owned[row]]] for row in listed[listed >= 0].tolist()],
            lambda rows, of_query=of_query: of_query[rows],  # type: ignore[misc]
            quota=quota,
            wanted=depth,
        )
        allowed[hidden] = True
        rows[query, : len(found)], scores[query, : len(found)] = found, fits
    return RankedLists(rows, scores)

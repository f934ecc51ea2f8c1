"""Evaluation queries of the advertiser model, and its lists for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.queries import with_log
from ml.examples.advertiser_period import AdvertiserData, AdvertiserPeriod, by_advertiser
from ml.examples.pairs import examples_at
from ml.examples.period import whole_log
from ml.features.advertisers import Advertisers
from ml.features.dataset import Dataset
from ml.features.event_log import EventLog, newest, within_lookback
from ml.features.items import DAY
from ml.models.advertiser_model import AdvertiserNetwork
from ml.models.batched_forward import embed_advertisers, embed_histories
from ml.models.tensors import CatalogueTensors
from ml.retrieval.lists import Positives, Ragged, RankedLists, search
from settings import Settings


@dataclass(frozen=True)
class AdvertiserQueries:
    """Users at an instant, and the advertisers that these users convert with in the window after the instant."""

    dataset: Dataset  # what was known at the instant, with a log that reaches beyond it
    advertisers: Advertisers  # as known at the instant
    log: EventLog  # the reaching log by advertiser
    user: NDArray[np.int64]  # [queries] rows of the log
    history_end: NDArray[np.int64]  # [queries]
    positives: Positives  # rows of ``index``; -1 = an advertiser that nobody could know at the instant: a miss
    positive_name: NDArray[np.int64]  # [positives] code of the event name
    repeated: NDArray[np.bool_]  # [positives] whether the user had an event with the advertiser before
    index: NDArray[np.int64]  # rows of the advertisers that are ranked, ascending
    as_of: float

    def __len__(self) -> int:
        return len(self.user)


def advertiser_queries(
    whole: AdvertiserPeriod, data: AdvertiserData, cutoff: float, *, settings: Settings, maximum: int, index_size: int
) -> AdvertiserQueries:
    """Return a query for each user who is known before ``cutoff`` and has positives in the window after ``cutoff``.

    Args:
        whole: a period that reaches to the window's end. data: the data known at the cut-off.
        maximum: at most this many users, a seeded sample. index_size: see ``sampled_index``.
    """
    seed = settings.training.seed
    items_log = whole_log(whole.period, settings)
    log = by_advertiser(items_log, whole.period.events, data.advertisers)
    found = examples_at(log, cutoff, whole.rule, whole.period.event_names)
    users = np.unique(found.user)
    if len(users) > maximum:
        users = np.sort(np.random.default_rng(seed).choice(users, maximum, replace=False))
        found = found.take(np.flatnonzero(np.isin(found.user, users)))
    index = sampled_index(data.advertisers.known(cutoff), np.unique(found.item), index_size, seed)
    place = np.full(len(data.advertisers), -1, np.int64)
    place[index] = np.arange(len(index))
    history_end = log.known_until(cutoff)
    return AdvertiserQueries(
        dataset=with_log(data.dataset, items_log),
        advertisers=data.advertisers,
        log=log,
        user=users,
        history_end=history_end[users],
        positives=Ragged.from_pairs(np.searchsorted(users, found.user), place[found.item], len(users)),
        positive_name=found.name,
        repeated=had_before(log, history_end, found.user, found.item),
        index=index,
        as_of=cutoff,
    )


def sampled_index(known: NDArray[np.int64], positives: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Draw the advertisers to rank, ascending.

    The index holds the positives among ``known`` (sorted rows), and a uniform sample of the other known advertisers
    that fills the index up to ``size``. If at most ``size`` advertisers are known, the index holds all of them. If more
    than ``size`` positives are known, the index holds just these positives.
    """
    wanted = np.intersect1d(known, positives)
    others = np.setdiff1d(known, positives)
    room = min(max(size - len(wanted), 0), len(others))
    return np.sort(np.concatenate([wanted, np.random.default_rng(seed).choice(others, room, replace=False)]))


def had_before(
    log: EventLog, known_until: NDArray[np.int64], user: NDArray[np.int64], advertiser: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the advertiser of each pair occurs in the history of the pair's user [pairs].

    Args:
        log: by advertiser. known_until: [users] flat position behind the last event of each user's history.
    """
    size = int(max(log.item.max(initial=0), advertiser.max(initial=0))) + 1
    of_event = log.user_of_event()
    before = (np.arange(log.events) < known_until[of_event]) & (log.offsite.item >= 0)
    return np.isin(user * size + advertiser, of_event[before] * size + log.item[before])


def query_lists(network: AdvertiserNetwork, queries: AdvertiserQueries, settings: Settings, depth: int) -> RankedLists:
    """Return the lists of a network for evaluation queries, in rows of the queries' index."""
    log = queries.dataset.log
    since = queries.as_of - settings.sequences.lookback_days * DAY
    known = newest(log, queries.user, queries.history_end, settings.sequences.length)
    users = embed_histories(
        network,
        CatalogueTensors(queries.dataset.features),
        log,
        slices=within_lookback(log, queries.user, known, since),
        demographics=queries.dataset.users_demographics(queries.user),
        settings=settings.inference,
    )
    advertisers = embed_advertisers(network, queries.advertisers.at(queries.as_of).take(queries.index))
    return search(users, advertisers, depth)

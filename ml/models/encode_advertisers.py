"""What a trained advertiser model answers: user and advertiser embeddings, and each user's list."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ml.examples.advertiser_period import AdvertiserQueries
from ml.features.advertisers import Profiles
from ml.features.event_log import EventLog, Slices, newest, within_lookback
from ml.features.items import DAY
from ml.models.advertiser_model import AdvertiserNetwork, advertiser_batch
from ml.models.encode import QUERY_BATCH, encode_states
from ml.models.tensors import CatalogueTensors, to_device
from ml.retrieval.lists import RankedLists, search
from settings import InferenceSettings, Settings


@torch.inference_mode()
def embed_advertisers(network: AdvertiserNetwork, profiles: Profiles) -> NDArray[np.float32]:
    """Advertiser embeddings [advertisers, W + D]."""
    network.eval()
    device = network.log_temperature.device
    parts = [np.zeros((0, network.embedding_width), np.float32)]
    for begin in range(0, len(profiles), QUERY_BATCH):
        rows = np.arange(begin, min(begin + QUERY_BATCH, len(profiles)))
        batch = to_device(advertiser_batch(profiles.take(rows)), device)
        parts.append(network.advertiser_tower(batch).cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def embed_histories(
    network: AdvertiserNetwork,
    catalogue: CatalogueTensors,
    log: EventLog,
    slices: Slices,
    demographics: NDArray[np.int64],
    settings: InferenceSettings,
) -> NDArray[np.float32]:
    """User embeddings [sequences, W + D] of histories and demographics [sequences, 3]: one encode, one head."""
    states = encode_states(network, catalogue, log, slices, settings)
    device = network.log_temperature.device
    parts = [np.zeros((0, network.embedding_width), np.float32)]
    for begin in range(0, len(states), QUERY_BATCH):
        rows = slice(begin, begin + QUERY_BATCH)
        state, known = torch.from_numpy(states[rows]).to(device), torch.from_numpy(demographics[rows]).to(device)
        parts.append(network.head(state, known).cpu().numpy())
    return np.concatenate(parts)


def query_lists(network: AdvertiserNetwork, queries: AdvertiserQueries, settings: Settings, depth: int) -> RankedLists:
    """Lists of a network for evaluation queries, in rows of their index."""
    log = queries.dataset.log
    since = queries.as_of - settings.sequences.lookback_days * DAY
    known = newest(log, queries.user, queries.history_end, settings.sequences.length)
    users = embed_histories(
        network,
        CatalogueTensors(queries.dataset.features),
        log,
        within_lookback(log, queries.user, known, since),
        queries.dataset.users_demographics(queries.user),
        settings.inference,
    )
    advertisers = embed_advertisers(network, queries.advertisers.at(queries.as_of).take(queries.index))
    return search(users, advertisers, depth)

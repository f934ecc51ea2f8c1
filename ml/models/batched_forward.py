"""Encoding of users and items with a trained network, on the device that holds the network."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ml.examples.context import Context
from ml.features.advertisers import Profiles
from ml.features.event_log import EventLog, Slices, batches_by_length, pack
from ml.models.advertiser_model import AdvertiserNetwork, advertiser_batch
from ml.models.item_model import TwoTower
from ml.models.tensors import CatalogueTensors, to_device
from ml.retrieval.exposure import exposure_offsets
from settings import IndexSettings, InferenceSettings

QUERY_BATCH = 65_536


class WithEncoder(Protocol):
    """The part of a network that encoding needs."""

    @property
    def encoder(self) -> nn.Module: ...

    @property
    def state_width(self) -> int: ...

    @property
    def log_temperature(self) -> Tensor: ...

    def eval(self) -> Any: ...


@torch.inference_mode()
def encode_states(
    network: WithEncoder, catalogue: CatalogueTensors, log: EventLog, *, slices: Slices, settings: InferenceSettings
) -> NDArray[np.float32]:
    """Encode sequences to states [sequences, state_width], in the order of ``slices``.

    The batches are in order of length.
    """
    network.eval()
    device = network.log_temperature.device
    states = np.zeros((len(slices), network.state_width), np.float32)
    for rows in batches_by_length(slices.lengths, settings.batch_tokens):
        events = to_device(catalogue.events(pack(log, slices.take(rows))), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            encoded = network.encoder(events)
        states[rows] = encoded.float().cpu().numpy()
    return states


@torch.inference_mode()
def embed_users(
    network: TwoTower,
    catalogue: CatalogueTensors,
    states: NDArray[np.float32],
    *,
    context: Context,
    demographics: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Run the head: return user embeddings [queries, embedding_width].

    The inputs are states [queries, state_width], live context and demographics [queries, 3].
    """
    network.eval()
    device = network.log_temperature.device
    parts = []
    for begin in range(0, len(states), QUERY_BATCH):
        rows = np.arange(begin, min(begin + QUERY_BATCH, len(states)))
        parts.append(
            network.head(
                torch.from_numpy(states[rows]).to(device),
                to_device(catalogue.context(context.take(rows)), device),
                torch.from_numpy(demographics[rows]).to(device),
            )
        )
    return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, network.embedding_width), np.float32)


def embed_items(network: TwoTower, catalogue: CatalogueTensors, statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the item embeddings [items, embedding_width] of the whole catalogue, without a popularity offset.

    ``statistics`` [items, width] are those of the day.
    """
    parts = [embed_some_items(network, catalogue, statistics, rows) for rows in item_ranges(catalogue.items)]
    return np.concatenate([np.zeros((0, network.embedding_width), np.float32), *parts])


def item_ranges(items: int) -> list[range]:
    """Return the ranges of a catalogue's rows that are embedded at a time."""
    return [range(begin, min(begin + QUERY_BATCH, items)) for begin in range(0, items, QUERY_BATCH)]


@torch.inference_mode()
def embed_some_items(
    network: TwoTower, catalogue: CatalogueTensors, statistics: NDArray[np.float32], rows: range
) -> NDArray[np.float32]:
    """Return the embeddings [rows, embedding_width] of a range of ``item_ranges``, as ``embed_items`` does."""
    network.eval()
    chosen = np.arange(rows.start, rows.stop)
    batch = to_device(catalogue.item_batch(chosen, statistics[chosen]), network.log_temperature.device)
    return network.item_tower(batch).cpu().numpy()


def popularity_weight(network: TwoTower, settings: IndexSettings) -> float:
    """Return the weight of the popularity offsets: 0 for a network of an earlier version, which has no part for it."""
    return settings.popularity_weight if network.shape.popularity else 0.0


def with_popularity_offsets(
    network: TwoTower, items: NDArray[np.float32], users: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Return item embeddings [items, width] in which the items that many lists hold score less.

    Args:
        items: [items, width], as ``embed_items`` gives them; the function overwrites them.
        users: [users, width] a sample of users on the home feed.
        weight: of ``popularity_weight``; times the temperature it is the strength of ``exposure_offsets``.
    """
    if weight:
        items[:, -network.shape.popularity] = exposure_offsets(users, items, weight * network.temperature.item())
    return items


@torch.inference_mode()
def embed_advertisers(network: AdvertiserNetwork, profiles: Profiles) -> NDArray[np.float32]:
    """Return the advertiser embeddings [advertisers, W + D]."""
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
    *,
    slices: Slices,
    demographics: NDArray[np.int64],
    settings: InferenceSettings,
) -> NDArray[np.float32]:
    """Encode histories and run the head: return user embeddings [sequences, W + D].

    The inputs of the head are the encoded histories and demographics [sequences, 3].
    """
    states = encode_states(network, catalogue, log, slices=slices, settings=settings)
    device = network.log_temperature.device
    parts = [np.zeros((0, network.embedding_width), np.float32)]
    for begin in range(0, len(states), QUERY_BATCH):
        rows = slice(begin, begin + QUERY_BATCH)
        state, known = torch.from_numpy(states[rows]).to(device), torch.from_numpy(demographics[rows]).to(device)
        parts.append(network.head(state, known).cpu().numpy())
    return np.concatenate(parts)

"""The memory of advertisers: what both towers hold beside the learned part."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ml.examples.advertiser_period import AdvertiserData
from ml.features.event_log import Slices, pack
from ml.models.advertiser_model import AdvertiserNetwork, advertiser_batch
from ml.models.encoders import EventBatch, SequenceBounds
from ml.models.tensors import CatalogueTensors
from ml.training.advertiser_task import new_advertiser_network
from ml.training.fit import Fit
from tests.ml.shops import SETTINGS
from tests.ml.worlds import instant

WIDTH = SETTINGS.model.width


def history(data: AdvertiserData, advertisers: list[int]) -> EventBatch:
    """A sequence of events with these advertisers."""
    packed = pack(data.dataset.log, Slices(np.array([0]), np.array([len(advertisers)])))
    named = dataclasses.replace(packed, advertiser=data.advertisers.hashes[advertisers])
    return CatalogueTensors(data.dataset.features).events(named)


@torch.inference_mode()
def test_the_memory_is_the_mean_over_the_newest_event_of_each_advertiser(data: AdvertiserData) -> None:
    """Three events of one advertiser, two of another, one of a third: each meets a third, or the encoder's weight."""
    network = new_advertiser_network(data, SETTINGS).eval()
    every = network.advertiser_tower(advertiser_batch(data.advertisers.at(instant(50))))[:, WIDTH:] * 2**0.5
    events, newest = history(data, [0, 1, 0, 2, 1, 0]), [3, 4, 5]  # of the advertisers 2, 1 and 0
    for parameter in network.encoder.memory.score.parameters():
        parameter.zero_()
    even = network.encoder(events)[0, WIDTH:]
    torch.testing.assert_close(even, every[:3].mean(dim=0))
    met = (every @ even)[:3].numpy()
    np.testing.assert_allclose(met, [1 / 3] * 3, atol=3 * SETTINGS.advertisers.memory_dimensions**-0.5)
    network.encoder.memory.score.weight.normal_()
    hidden = network.encoder.sequence(events, SequenceBounds.of(events)).hidden
    weight = network.encoder.memory.score(hidden)[newest, 0].softmax(dim=0)
    assert weight.max() > 2 * weight.min()
    expected = (weight[:, None] * every[[2, 1, 0]]).sum(dim=0)
    torch.testing.assert_close(network.encoder(events)[0, WIDTH:], expected)


@torch.inference_mode()
def test_the_memory_of_a_model_from_before_is_the_mean_over_all_events(data: AdvertiserData) -> None:
    network = new_advertiser_network(data, SETTINGS).eval()
    before = AdvertiserNetwork(
        dataclasses.replace(network.shape, remembers_newest=False), SETTINGS.model, SETTINGS.features, 0.05
    ).eval()
    every = before.advertiser_tower(advertiser_batch(data.advertisers.at(instant(50))))[:, WIDTH:] * 2**0.5
    for parameter in before.encoder.memory.score.parameters():
        parameter.zero_()
    found = before.encoder(history(data, [0, 1, 0, 2, 1, 0]))[0, WIDTH:]
    torch.testing.assert_close(found, (3 * every[0] + 2 * every[1] + every[2]) / 6)


def test_the_newest_of_each_group_is_told_within_each_sequence() -> None:
    lengths = torch.tensor([3, 0, 4])
    begins = lengths.cumsum(0) - lengths
    sequences = SequenceBounds(lengths, begins, torch.arange(3).repeat_interleave(lengths), [(1, 3), (1, 0), (1, 4)])
    found = sequences.newest_of_each(torch.tensor([7, 8, 7, 8, 8, 7, 8]))
    assert found.tolist() == [False, True, True, False, False, True, True]
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = SequenceBounds(torch.tensor([0]), torch.tensor([0]), nothing, [(1, 0)])
    assert empty.newest_of_each(nothing).tolist() == []


@torch.inference_mode()
def test_an_advertiser_is_of_unit_length_and_a_user_without_events_has_no_memory(
    fitted: Fit[AdvertiserNetwork], data: AdvertiserData
) -> None:
    network = fitted.network
    events = CatalogueTensors(data.dataset.features).events(
        pack(data.dataset.log, Slices(np.array([12, 0]), np.array([18, 0])))
    )
    users = network.head(network.encoder(events), torch.zeros(2, 3, dtype=torch.int64))
    assert users.shape == (2, network.embedding_width)
    assert (users.norm(dim=1) > 0).all()
    assert users[0, WIDTH:].any()
    assert not users[1, WIDTH:].any()
    advertisers = network.advertiser_tower(advertiser_batch(data.advertisers.at(instant(50))))
    torch.testing.assert_close(advertisers.norm(dim=1), torch.ones(len(data.advertisers)))

"""The memory of advertisers: what both towers hold beside the learned part."""

from __future__ import annotations

import numpy as np
import torch

from ml.advertisers.learning import AdvertiserData
from ml.advertisers.towers import advertiser_batch
from ml.advertisers.training import AdvertiserFit, new_advertiser_network
from ml.sequences import Slices, pad
from ml.tensors import CatalogueTensors
from tests.ml.advertisers.shops import SETTINGS
from tests.ml.worlds import instant

WIDTH = SETTINGS.model.width


@torch.inference_mode()
def test_with_even_weights_the_memory_meets_an_advertiser_as_often_as_the_history_did(data: AdvertiserData) -> None:
    """Nearly orthogonal directions: their inner product is the share of the history, up to 3 / sqrt(D)."""
    network = new_advertiser_network(data, SETTINGS).eval()
    for parameter in network.encoder.memory.score.parameters():
        parameter.zero_()
    events = CatalogueTensors(data.dataset.features).events(
        pad(data.dataset.log, Slices(np.array([12]), np.array([18])))
    )
    memory = network.encoder(events)[0, WIDTH:]
    directions = network.advertiser_tower(advertiser_batch(data.advertisers.at(instant(50))))[:, WIDTH:] * 2**0.5
    met = np.bincount(data.log.item[12:18], minlength=len(data.advertisers)) / 6
    np.testing.assert_allclose(
        (directions @ memory).numpy(), met, atol=3 * SETTINGS.advertisers.memory_dimensions**-0.5
    )
    assert met.max() > 0.3


@torch.inference_mode()
def test_embeddings_are_of_unit_length_and_a_user_without_events_has_no_memory(
    fitted: AdvertiserFit, data: AdvertiserData
) -> None:
    network = fitted.network
    events = CatalogueTensors(data.dataset.features).events(
        pad(data.dataset.log, Slices(np.array([12, 0]), np.array([18, 0])))
    )
    users = network.head(network.encoder(events), torch.zeros(2, 3, dtype=torch.int64))
    assert users.shape == (2, network.embedding_width)
    torch.testing.assert_close(users.norm(dim=1), torch.ones(2))
    assert users[0, WIDTH:].any()
    assert not users[1, WIDTH:].any()
    advertisers = network.advertiser_tower(advertiser_batch(data.advertisers.at(instant(50))))
    torch.testing.assert_close(advertisers.norm(dim=1), torch.ones(len(data.advertisers)))

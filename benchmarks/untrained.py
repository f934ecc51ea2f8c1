"""A model that has learnt nothing: weights change no time."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ml.features.dataset import Dataset, build_dataset
from ml.models.advertiser_artifact import AdvertiserArtifact
from ml.models.artifact import ModelArtifact
from ml.models.encoders import ModelShape
from ml.models.item_model import TwoTower
from ml.training.item_task import new_network
from settings import Settings

NAMES = ["page_visit", "add_to_cart", "checkout"]


def untrained_model(log: pl.DataFrame, items: pl.DataFrame, directory: Path) -> tuple[Dataset, TwoTower]:
    """Return a network for a catalogue and the dataset of the network.

    The network is written into ``directory`` like a version's deployed part.

    Args:
        log: some events of the catalogue's items, sorted by user_id and event_time.
        items: contract columns.
    """
    settings = Settings()
    nobody = pl.DataFrame(schema={"user_id": pl.String, "age": pl.Int32, "gender": pl.String, "country": pl.String})
    always = items.with_columns(listed_from=pl.lit(None, pl.Datetime("us", "UTC")))
    dataset = build_dataset(log, always, nobody, settings=settings.features, event_names=NAMES)
    network = new_network(dataset, settings).eval()
    ModelArtifact(network, dataset.basis, settings, NAMES, dataset.log.end).save(directory)
    return dataset, network


def untrained_advertisers(dataset: Dataset, directory: Path) -> None:
    """Write an untrained advertiser model under the content of ``dataset`` into ``directory``."""
    settings = Settings()
    statistics = len(settings.features.statistics_windows_days) + 3  # and all time, the age, whether there is an event
    shape = ModelShape.of(dataset.basis, statistics, settings.sequences.length)
    network = AdvertiserArtifact.untrained(shape, settings).eval()
    AdvertiserArtifact(network, dataset.basis, settings, NAMES, dataset.log.end).save(directory)

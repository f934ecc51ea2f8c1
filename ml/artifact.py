"""A trained model on disk: weights, the frozen content basis, and what is needed to read both.

The directory is written beside its place and renamed, so that a reader sees a whole model or none.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import polars as pl
import torch

from ml.content import ContentBasis
from ml.dataset import Dataset, build_dataset
from ml.encoders import ModelShape
from ml.towers import TwoTower
from settings import Settings

if TYPE_CHECKING:
    from ml.learning import TrainingPeriod

FORMAT = 4  # counts up when what is saved no longer fits the code that loads it
WEIGHTS, DESCRIPTION, BASIS = "weights.pt", "model.json", "content_basis.parquet"


class ArtifactError(ValueError):
    """A model directory is missing or incomplete; the message names it."""


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """A directory to write into, which takes the place of ``directory`` when all went well."""
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_description(directory: Path) -> dict[str, Any]:
    """The description of an artefact that can be loaded.

    Raises:
        ArtifactError: a file is missing, or the artefact has another format.
    """
    missing = [name for name in (WEIGHTS, DESCRIPTION, BASIS) if not (directory / name).is_file()]
    if missing:
        raise ArtifactError(f"{directory} is not a model: {', '.join(missing)} missing. Train again (job `retrain`).")
    description: dict[str, Any] = json.loads((directory / DESCRIPTION).read_text())
    found = description.get("format", 1)
    if found != FORMAT:
        raise ArtifactError(
            f"{directory} was written in format {found} by another version of adseq; this one reads {FORMAT}. Go on "
            "with the version that wrote it, or give another --home (the landing zone stays as it is)."
        )
    return description


class SavedNetwork(Protocol):
    """What saving needs of a network, beside its weights."""

    shape: ModelShape

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...

    def eval(self) -> Any: ...


Network = TypeVar("Network", bound=SavedNetwork)


@dataclass(frozen=True)
class Artifact(ABC, Generic[Network]):
    """A model that can be deployed: of items here, of advertisers in ``ml.advertisers.artifact``."""

    network: Network
    basis: ContentBasis
    settings: Settings  # under which it was trained
    event_names: list[str]
    trained_until: float  # seconds since 1970 UTC; no event at or after it was seen

    def save(self, directory: Path) -> None:
        """Write the artefact, replacing what was there."""
        with replacing(directory) as temporary:
            torch.save(self.network.state_dict(), temporary / WEIGHTS)
            self.basis.to_frame().write_parquet(temporary / BASIS)
            description = {
                "format": FORMAT,
                "shape": asdict(self.network.shape),
                "settings": self.settings.model_dump(mode="json", exclude={"home"}),
                "event_names": self.event_names,
                "trained_until": self.trained_until,
            }
            (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read an artefact.

        Raises:
            ArtifactError: a file is missing, or another adseq wrote it.
        """
        description = read_description(directory)
        settings = Settings.model_validate(description["settings"])
        network = cls.untrained(ModelShape(**description["shape"]), settings)
        network.load_state_dict(torch.load(directory / WEIGHTS, weights_only=True, map_location="cpu"))
        return cls(
            network=network.eval(),
            basis=ContentBasis.from_frame(pl.read_parquet(directory / BASIS)),
            settings=settings,
            event_names=description["event_names"],
            trained_until=description["trained_until"],
        )

    @staticmethod
    @abstractmethod
    def untrained(shape: ModelShape, settings: Settings) -> Network:
        """A network that the weights fit into."""


@dataclass(frozen=True)
class ModelArtifact(Artifact[TwoTower]):
    """An item model that can be deployed."""

    @staticmethod
    def untrained(shape: ModelShape, settings: Settings) -> TwoTower:
        return TwoTower(shape, settings.model, settings.features, settings.training.temperature)

    def dataset(self, known: TrainingPeriod) -> Dataset:
        """What ``known`` holds, under this model's basis and vocabulary."""
        return build_dataset(
            known.events, known.items, known.users, self.settings.features, self.event_names, self.basis
        )

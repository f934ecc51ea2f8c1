"""A trained model on disk: the weights, the frozen content basis, and the description that is needed to read both.

The directory is written beside its place and then renamed, so a reader sees a whole model or none.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import polars as pl
import torch
from pydantic import BaseModel

from ml.features.content import ContentBasis
from ml.features.dataset import Dataset, build_dataset
from ml.file_integrity import Unreadable, first_line, sha256_of
from ml.models.encoders import ModelShape
from ml.models.item_model import TwoTower
from settings import Settings

if TYPE_CHECKING:
    from ml.examples.period import TrainingPeriod

FORMAT = 7  # counts up when what is saved no longer fits the code that loads it
RENAMED = {"maximum_epochs": "epochs"}  # settings, from what they were called before
READ = (5, 6, FORMAT)  # 5 has no words of titles, 6 no popularity part: such models load, and answer as before
WEIGHTS, DESCRIPTION, BASIS = "weights.pt", "model.json", "content_basis.parquet"
CHECKSUMS = "checksums.json"  # file name -> SHA-256, of the three


class ArtifactError(Unreadable):
    """A model directory is missing, incomplete or damaged; the message names the file."""


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Provide a directory to write into, which replaces ``directory`` if no exception is raised."""
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
    """Return the description of an artefact that can be loaded.

    Raises:
        ArtifactError: a file is missing or damaged, or the artefact has another format.
    """
    missing = [name for name in (WEIGHTS, DESCRIPTION, BASIS) if not (directory / name).is_file()]
    if missing:
        raise ArtifactError(f"{directory} is not a model: {', '.join(missing)} missing. Train again (job `retrain`).")
    with _naming(directory / DESCRIPTION):
        description: dict[str, Any] = json.loads((directory / DESCRIPTION).read_text())
    found = description.get("format", 1)
    if found not in READ:
        raise ArtifactError(
            f"{directory} was written in format {found} by another version of adseq; this one reads {FORMAT}. Go on "
            "with the version that wrote it, or give another --home (the landing zone stays as it is)."
        )
    return description


def verify_checksums(directory: Path) -> None:
    """Check the files of an artefact against their checksums; an artefact that was saved without checksums passes.

    Raises:
        ArtifactError: a file does not match, or the checksums cannot be read.
    """
    path = directory / CHECKSUMS
    if not path.is_file():
        return
    with _naming(path):
        expected = {name: str(checksum) for name, checksum in json.loads(path.read_text()).items()}
    for name, checksum in expected.items():
        if not (directory / name).is_file() or sha256_of(directory / name) != checksum:
            raise damaged(directory / name, f"it does not match its checksum in {CHECKSUMS}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn the error that a library raises over a damaged file into an error that names the file."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError) as error:
        raise damaged(path, first_line(error)) from error
    except pl.exceptions.PolarsError as error:
        raise damaged(path, first_line(error)) from error


def _without_retired(values: Mapping[str, Any], group: type[BaseModel]) -> dict[str, Any]:
    """Return stored settings under their names of today, without those that this version of adseq has no longer.

    A setting that changed what a model computes cannot retire so: ``FORMAT`` rises, and the artefact is refused.
    """
    kept: dict[str, Any] = {}
    for stored, value in values.items():
        name = RENAMED.get(stored, stored)
        field = group.model_fields.get(name)
        if field is None:
            continue
        inner: Any = field.annotation
        of_group = isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping)
        kept[name] = _without_retired(value, inner) if of_group else value
    return kept


def damaged(path: Path, why: str) -> ArtifactError:
    """Return the error for a damaged file of a model; the message says how to go on."""
    return ArtifactError(
        f"{path} is damaged ({why}). Restore it from a backup, train again (`adseq run --retrain`), or let an earlier "
        "champion serve (`adseq rollback`)."
    )


class SavedNetwork(Protocol):
    """The part of a network, beside its weights, that saving needs."""

    shape: ModelShape

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...

    def eval(self) -> Any: ...


Network = TypeVar("Network", bound=SavedNetwork)


@dataclass(frozen=True)
class Artifact(ABC, Generic[Network]):
    """A model that can be deployed: of items here, of advertisers in ``ml.models.advertiser_artifact``."""

    network: Network
    basis: ContentBasis
    settings: Settings  # under which it was trained
    event_names: list[str]
    trained_until: float  # seconds since 1970 UTC; no event at or after it was seen

    def save(self, directory: Path) -> None:
        """Write the artefact, replacing the one in ``directory``."""
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
            checksums = {name: sha256_of(temporary / name) for name in (WEIGHTS, DESCRIPTION, BASIS)}
            (temporary / CHECKSUMS).write_text(json.dumps(checksums, indent=1))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read an artefact.

        Raises:
            ArtifactError: a file is missing or damaged, or another version of adseq wrote the file.
        """
        description = read_description(directory)
        verify_checksums(directory)
        with _naming(directory / DESCRIPTION):
            settings = Settings.model_validate(_without_retired(description["settings"], Settings))
            network = cls.untrained(ModelShape(**description["shape"]), settings)
        with _naming(directory / WEIGHTS):
            network.load_state_dict(torch.load(directory / WEIGHTS, weights_only=True, map_location="cpu"))
        with _naming(directory / BASIS):
            basis = ContentBasis.from_frame(pl.read_parquet(directory / BASIS, glob=False))
        return cls(
            network=network.eval(),
            basis=basis,
            settings=settings,
            event_names=description["event_names"],
            trained_until=description["trained_until"],
        )

    @staticmethod
    @abstractmethod
    def untrained(shape: ModelShape, settings: Settings) -> Network:
        """Return an untrained network that the weights fit into."""


@dataclass(frozen=True)
class ModelArtifact(Artifact[TwoTower]):
    """An item model that can be deployed."""

    @staticmethod
    def untrained(shape: ModelShape, settings: Settings) -> TwoTower:
        return TwoTower(shape, settings.model, settings.features, settings.training.temperature)

    def dataset(self, known: TrainingPeriod) -> Dataset:
        """Return the dataset of ``known`` under this model's basis and vocabulary."""
        return build_dataset(
            known.events,
            known.items,
            known.users,
            settings=self.settings.features,
            event_names=self.event_names,
            basis=self.basis,
        )

"""The workspace of a run: the effective settings, and the home that the run reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import polars as pl

from engine.engine import Engine, engine_of
from settings import Settings
from warehouse.as_of import counted_events, items_as_of
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

if TYPE_CHECKING:
    from ml.models.advertiser_artifact import AdvertiserArtifact
    from ml.models.artifact import Artifact, ModelArtifact
    from ml.versions.tracking import Tracking

HELD_ARTIFACTS = 3  # the item model, the advertiser model and one more; each may take gigabytes

Made = TypeVar("Made")
Loaded = TypeVar("Loaded", bound="Artifact[Any]")


@dataclass(frozen=True)
class Workspace:
    """The effective settings of one run, and its places.

    The newest model artefacts are kept: a version's directory does not change after its training.
    """

    settings: Settings
    _artifacts: dict[Path, Artifact[Any]] = field(default_factory=dict, repr=False, compare=False)
    _kept: dict[str, tuple[Hashable, object]] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Workspace], tuple[Settings]]:
        """Return the settings, from which another process makes a workspace of the same home."""
        return Workspace, (self.settings.model_copy(update={"home": self.home.root}),)

    @classmethod
    def from_environment(cls) -> Workspace:
        """Return the workspace of the settings in the environment, for code that Dagster does not run."""
        return cls(Settings())

    @cached_property
    def home(self) -> Home:
        return Home(self.settings.home)

    @cached_property
    def tables(self) -> Tables:
        return Tables(self.home.tables)

    @cached_property
    def landing(self) -> Landing:
        return Landing(self.home.landing)

    @cached_property
    def engine(self) -> Engine:
        """Return the place where the parts of stages run.

        Raises:
            EngineFailed: the settings ask for Ray, and Ray is not installed, or no cluster answers.
        """
        return engine_of(self.settings.engine)

    @cached_property
    def tracking(self) -> Tracking:
        """Return the MLflow of the home."""
        from ml.versions.tracking import Tracking

        return Tracking(self.home.tracking_uri, self.home.artifacts)

    def items_as_of(self, day: date) -> pl.DataFrame:
        """Return the catalogue as of the end of ``day``, as ``warehouse.as_of.items_as_of`` does.

        The work takes a pass over all events, so the newest answer is kept.
        """
        key = self.arrivals_key(day, "events", "items")
        return self.once("catalogue", key, lambda: items_as_of(self.tables, self.landing, day))

    def counted_events(self, day: date, windows_days: Sequence[float]) -> pl.DataFrame:
        """Return the events as of the end of ``day``, counted as ``warehouse.as_of.counted_events`` does; kept, too."""
        key = (self.arrivals_key(day, "events"), tuple(windows_days))
        return self.once("counted events", key, lambda: counted_events(self.tables, self.landing, day, windows_days))

    def arrivals_key(self, day: date, *tables: str) -> Hashable:
        """Return a key that changes with ``day`` and with the contents of ``tables``."""
        ingested = [table for table in tables if self.tables.exists(table)]
        return (day, *(file for table in ingested for file in self.tables.files(table)))

    def item_model(self, directory: Path) -> ModelArtifact:
        """Return the item model of a directory, with the index settings of this run in the place of the training's.

        So each report has the popularity weight that the index of the day has.

        Raises:
            ArtifactError: a file is missing or damaged, or another version of adseq wrote the file.
        """
        from ml.models.artifact import ModelArtifact

        artifact = self._artifact(ModelArtifact, directory)
        return replace(artifact, settings=artifact.settings.model_copy(update={"index": self.settings.index}))

    def advertiser_model(self, directory: Path) -> AdvertiserArtifact:
        """Return the advertiser model of a directory.

        Raises:
            ArtifactError: a file is missing or damaged, or another version of adseq wrote the file.
        """
        from ml.models.advertiser_artifact import AdvertiserArtifact

        return self._artifact(AdvertiserArtifact, directory)

    def once(self, what: str, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return the result of ``make``, and keep the result until ``what`` is asked for under another key.

        Several assets of a run read the same result.
        """
        if what not in self._kept or self._kept[what][0] != key:
            self._kept.pop(what, None)  # not two at a time in memory
            self._kept[what] = key, make()
        return cast(Made, self._kept[what][1])

    def _artifact(self, kind: type[Loaded], directory: Path) -> Loaded:
        if directory not in self._artifacts:
            if len(self._artifacts) == HELD_ARTIFACTS:
                self._artifacts.pop(next(iter(self._artifacts)))  # the one that was read first
            self._artifacts[directory] = kind.load(directory)
        return cast(Loaded, self._artifacts[directory])

"""The workspace of a run: the effective settings, and the home that the run reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import polars as pl

from settings import Settings
from warehouse.as_of import items_as_of
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

if TYPE_CHECKING:
    from ml.models.advertiser_artifact import AdvertiserArtifact
    from ml.models.artifact import ModelArtifact
    from ml.versions.tracking import Tracking

Made = TypeVar("Made")


@dataclass(frozen=True)
class Workspace:
    """The effective settings of one run, and its places.

    Model artefacts are read once a workspace: a version's directory does not change after its training.
    """

    settings: Settings
    _item_models: dict[Path, ModelArtifact] = field(default_factory=dict, repr=False, compare=False)
    _advertiser_models: dict[Path, AdvertiserArtifact] = field(default_factory=dict, repr=False, compare=False)
    _catalogue: dict[tuple[object, ...], pl.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    _made: dict[tuple[str, str], object] = field(default_factory=dict, repr=False, compare=False)

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
    def tracking(self) -> Tracking:
        """The MLflow of the home."""
        from ml.versions.tracking import Tracking

        return Tracking(self.home.tracking_uri, self.home.artifacts)

    def items_as_of(self, day: date) -> pl.DataFrame:
        """Return the catalogue as of the end of ``day``, as ``warehouse.as_of.items_as_of`` does.

        Several steps of a day ask for the same catalogue, which takes a pass over all events: the newest answer is kept
        for as long as neither table changes.
        """
        state = (day, *self.tables.files("items"), *self.tables.files("events"))
        if state not in self._catalogue:
            self._catalogue.clear()
            self._catalogue[state] = items_as_of(self.tables, self.landing, day)
        return self._catalogue[state]

    def item_model(self, directory: Path) -> ModelArtifact:
        """Return the item model of a directory.

        Raises:
            ArtifactError: a file is missing or damaged, or another adseq wrote it.
        """
        from ml.models.artifact import ModelArtifact

        if directory not in self._item_models:
            self._item_models[directory] = ModelArtifact.load(directory)
        return self._item_models[directory]

    def advertiser_model(self, directory: Path) -> AdvertiserArtifact:
        """Return the advertiser model of a directory.

        Raises:
            ArtifactError: a file is missing or damaged, or another adseq wrote it.
        """
        from ml.models.advertiser_artifact import AdvertiserArtifact

        if directory not in self._advertiser_models:
            self._advertiser_models[directory] = AdvertiserArtifact.load(directory)
        return self._advertiser_models[directory]

    def once(self, what: str, version: str, make: Callable[[], Made]) -> Made:
        """Return what ``make`` makes of a version, made once a workspace: several assets of a run read it."""
        if (what, version) not in self._made:
            self._made[what, version] = make()
        return cast(Made, self._made[what, version])

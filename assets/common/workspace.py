"""The workspace of a run: the effective settings, and the home that the run reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from settings import Settings
from warehouse.home import Home
from warehouse.landing import Landing
from warehouse.tables import Tables

if TYPE_CHECKING:
    from ml.models.artifact import Artifact
    from ml.versions.tracking import Tracking


@dataclass(frozen=True)
class Workspace:
    """The effective settings of one run, and its places.

    Model artefacts are read once a workspace: a version's directory does not change after its training.
    """

    settings: Settings
    _artifacts: dict[Path, Artifact] = field(default_factory=dict, repr=False, compare=False)

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

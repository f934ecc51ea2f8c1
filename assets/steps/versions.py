"""Model versions on record, and which version serves a day.

Each kind of model has a table of its versions and a table of deployments, which records what served each day, so that
re-running last Tuesday uses Tuesday's model.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path

import dagster as dg
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.skip_without_items import require_items_by
from ml.file_integrity import Unreadable
from ml.models.version_directories import DEPLOYED
from settings import SequenceSettings
from warehouse.home import Home
from warehouse.tables import Tables

PROMOTIONS = "promotions"


class ModelKind(StrEnum):
    """The kinds of models that have versions."""

    item = "item"
    advertiser = "advertiser"


@dataclass(frozen=True)
class ModelVersion:
    """A trained version of a model."""

    kind: ModelKind
    name: str
    trained_day: date  # the newest day it learnt from; its full inference is as of this day
    run_id: str  # MLflow
    directory: Path  # holds `deployed` and the networks of the evaluation

    @property
    def number(self) -> str:
        """Return the number of the version in MLflow's registry."""
        return self.name.removeprefix(f"{self.kind}-")

    @property
    def deployed(self) -> Path:
        """Return the directory of the artefact that serves."""
        return self.directory / DEPLOYED


@dataclass(frozen=True)
class VersionRecords:
    """The versions of one kind of model on record.

    Attributes:
        models: the directory of all versions.
        versions, deployments: names of the tables.
    """

    kind: ModelKind
    tables: Tables
    models: Path
    versions: str
    deployments: str

    def add(self, name: str, trained_day: date, run_id: str) -> None:
        """Record a registered version."""
        row = {"trained_day": trained_day, "run_id": run_id, "created": datetime.now(UTC)}
        self.tables.write(self.versions, pl.DataFrame([row]), {"model_version": name})

    def all(self) -> list[ModelVersion]:
        """Return every version, oldest first."""
        if not self.tables.exists(self.versions):
            return []
        rows = self.tables.scan(self.versions).collect().sort("created").rows(named=True)
        return [
            ModelVersion(
                self.kind, row["model_version"], row["trained_day"], row["run_id"], self.models / row["model_version"]
            )
            for row in rows
        ]

    def named(self, name: str) -> ModelVersion:
        """Return one version.

        Raises:
            dagster.Failure: there is none of that name.
        """
        found = [version for version in self.all() if version.name == name]
        if not found:
            raise dg.Failure(f"model version {name!r} is not in {self.tables.path(self.versions)}", allow_retries=False)
        return found[0]

    def deployed_on(self, day: date) -> str | None:
        """Return the name of the version that served ``day``; None where no version is recorded."""
        if not self.tables.exists(self.deployments):
            return None
        rows = self.tables.scan(self.deployments).filter(pl.col("day") == day).collect()
        return rows["model_version"][0] if len(rows) else None

    def record_deployment(self, day: date, version: ModelVersion) -> None:
        """Record the version that serves ``day``, once: a re-run keeps the first record."""
        if self.deployed_on(day) is None:
            self.tables.write(self.deployments, pl.DataFrame([{"model_version": version.name}]), {"day": day})

    def deployment_days(self) -> list[date]:
        """Return the days that have a record, ascending."""
        return self.tables.days(self.deployments, "day")


def item_versions(tables: Tables, home: Home) -> VersionRecords:
    """Return the records of the item model."""
    return VersionRecords(ModelKind.item, tables, home.models, "model_versions", "deployments")


def advertiser_versions(tables: Tables, home: Home) -> VersionRecords:
    """Return the records of the advertiser model.

    A version is recorded once everybody's candidates are written: there is no gate between advertiser models.
    """
    return VersionRecords(ModelKind.advertiser, tables, home.models, "advertiser_versions", "advertiser_deployments")


def record_promotion(tables: Tables, version: str) -> None:
    """Record that an item model version became champion, and the time."""
    tables.write(PROMOTIONS, pl.DataFrame([{"promoted_at": datetime.now(UTC)}]), {"model_version": version})


def serving(tables: Tables, home: Home, day: date, champion: str | None) -> ModelVersion:
    """Return the item model version that serves ``day``.

    The recorded version comes first, else ``champion`` if trained by then, else the most recently promoted version that
    was trained by then.

    Raises:
        NothingToLearn: the training by ``day`` had no item to learn.
        dagster.Failure: no promoted model had been trained by ``day``; the message says what to do.
    """
    version = _promoted_by(tables, home, day, champion)
    if version is None:
        require_items_by(tables, day)
        raise dg.Failure(
            f"No model that learnt from data until {day} or earlier was ever promoted. Run the job `bootstrap` (or "
            "`adseq run`) first. Days before the end of the first training period cannot be served.",
            allow_retries=False,
        )
    return version


def serving_advertisers(tables: Tables, home: Home, day: date) -> ModelVersion | None:
    """Return the advertiser model version that serves ``day``: the recorded one, else the newest trained by then.

    None without such a version.
    """
    records = advertiser_versions(tables, home)
    recorded = records.deployed_on(day)
    usable = [each for each in records.all() if each.trained_day <= day and recorded in (None, each.name)]
    return usable[-1] if usable else None


def sequence_shape(workspace: Workspace, day: date) -> SequenceSettings:
    """Return the shape in which to store the day's sequences.

    The model that serves the day gives the shape, the item model first. The settings give the shape where no model
    serves the day, or the model's description cannot be read. A reader of another shape computes the sequences anew, so
    the choice costs or saves time and changes nothing else.
    """
    from ml.models.artifact import read_description

    tables, home = workspace.tables, workspace.home
    recorded = item_versions(tables, home).deployed_on(day)
    champion = None if recorded or not tables.exists(PROMOTIONS) else workspace.tracking.champion()
    version = _promoted_by(tables, home, day, champion) or serving_advertisers(tables, home, day)
    if version is None:
        return workspace.settings.sequences
    try:
        return SequenceSettings.model_validate(read_description(version.deployed)["settings"]["sequences"])
    except (Unreadable, KeyError):
        return workspace.settings.sequences


def _promoted_by(tables: Tables, home: Home, day: date, champion: str | None) -> ModelVersion | None:
    records = item_versions(tables, home)
    if recorded := records.deployed_on(day):
        return records.named(recorded)
    promoted = {}
    if tables.exists(PROMOTIONS):
        promoted = dict(tables.scan(PROMOTIONS).select("model_version", "promoted_at").collect().rows())
    usable = [version for version in records.all() if version.name in promoted and version.trained_day <= day]
    if not usable:
        return None
    of_now = [version for version in usable if version.name == champion]
    return of_now[0] if of_now else max(usable, key=lambda version: promoted[version.name])

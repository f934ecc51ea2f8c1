"""Which model version serves a day, and the artefacts of a version.

``deployments`` records what served each day, so that re-running last Tuesday uses Tuesday's model. A day that has no
record takes the champion of now, if that had been trained by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from assets.steps.without_items import require_items_by
from ml.models.layout import DEPLOYED
from warehouse.home import Home
from warehouse.tables import Tables

if TYPE_CHECKING:
    from ml.models.artifact import ModelArtifact

MODEL_VERSIONS, PROMOTIONS, DEPLOYMENTS = "model_versions", "promotions", "deployments"


@dataclass(frozen=True)
class ModelVersion:
    """A trained version: its directory holds ``deployed`` and the networks of the evaluation."""

    name: str
    trained_day: date  # the newest day it learnt from; its full inference is as of this day
    run_id: str  # MLflow
    directory: Path

    def load(self, part: str = DEPLOYED) -> ModelArtifact:
        """Read one of its artefacts."""
        from ml.models.artifact import ModelArtifact

        return ModelArtifact.load(self.directory / part)


def record_version(tables: Tables, version: str, trained_day: date, run_id: str) -> None:
    """Remember a registered version."""
    row = {"trained_day": trained_day, "run_id": run_id, "created": datetime.now(UTC)}
    tables.write(MODEL_VERSIONS, pl.DataFrame([row]), {"model_version": version})


def versions(tables: Tables, home: Home) -> list[ModelVersion]:
    """Every registered version, oldest first."""
    if not tables.exists(MODEL_VERSIONS):
        return []
    rows = tables.scan(MODEL_VERSIONS).collect().sort("created").rows(named=True)
    return [
        ModelVersion(row["model_version"], row["trained_day"], row["run_id"], home.models / row["model_version"])
        for row in rows
    ]


def version_named(tables: Tables, home: Home, name: str) -> ModelVersion:
    """One version.

    Raises:
        dagster.Failure: there is none of that name.
    """
    found = [version for version in versions(tables, home) if version.name == name]
    if not found:
        raise dg.Failure(f"model version {name!r} is not in {tables.path(MODEL_VERSIONS)}", allow_retries=False)
    return found[0]


def record_promotion(tables: Tables, version: str) -> None:
    """Remember that a version became champion, and when."""
    tables.write(PROMOTIONS, pl.DataFrame([{"promoted_at": datetime.now(UTC)}]), {"model_version": version})


def serving(tables: Tables, home: Home, day: date, champion: str | None) -> ModelVersion:
    """The version that serves ``day``: the recorded one, else ``champion`` if it was trained by then, else the newest
    promoted version that was.

    Raises:
        NothingToLearn: the training by ``day`` had no item to learn.
        dagster.Failure: no promoted model had been trained by ``day``; says what to do.
    """
    recorded = _recorded(tables, day)
    if recorded:
        return version_named(tables, home, recorded)
    promoted = {}
    if tables.exists(PROMOTIONS):
        promoted = dict(tables.scan(PROMOTIONS).select("model_version", "promoted_at").collect().rows())
    usable = [version for version in versions(tables, home) if version.name in promoted and version.trained_day <= day]
    if not usable:
        require_items_by(tables, day)
        raise dg.Failure(
            f"No model trained by {day} was ever promoted. Run the job `bootstrap` (or `adseq run`) first; "
            "days before the end of the first training period cannot be served.",
            allow_retries=False,
        )
    of_now = [version for version in usable if version.name == champion]
    return of_now[0] if of_now else max(usable, key=lambda version: promoted[version.name])


def record_deployment(tables: Tables, day: date, version: ModelVersion) -> None:
    """Record what serves ``day``, once: a re-run keeps the first record."""
    if not _recorded(tables, day):
        tables.write(DEPLOYMENTS, pl.DataFrame([{"model_version": version.name}]), {"day": day})


def _recorded(tables: Tables, day: date) -> str | None:
    if not tables.exists(DEPLOYMENTS):
        return None
    rows = tables.scan(DEPLOYMENTS).filter(pl.col("day") == day).collect()
    return rows["model_version"][0] if len(rows) else None

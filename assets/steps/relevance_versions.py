"""The relevance models on record, one for each day that has trained one, and which of them a day uses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from assets.common.workspace import Workspace

if TYPE_CHECKING:
    from ml.relevance.relevance_model import RelevanceModel

RELEVANCE_VERSIONS, RELEVANCE_MEASURES = "relevance_versions", "relevance_measures"


@dataclass(frozen=True)
class RelevanceVersion:
    """A relevance model that a day has trained.

    Attributes:
        day: that has trained the model; the name of the version says it.
        trained_until: seconds since 1970 UTC; no label at or after it was learnt.
    """

    name: str
    day: date
    trained_until: float
    directory: Path


def name_of(day: date) -> str:
    """Return the name of the version that a day trains."""
    return f"relevance-{day}"


def record_version(workspace: Workspace, day: date, *, trained_until: float, passed: bool, reason: str) -> None:
    """Record the model that a day has trained, in the place of one that the day had trained before."""
    row = {"version": name_of(day), "trained_until": trained_until, "passed": passed, "reason": reason}
    workspace.tables.write(RELEVANCE_VERSIONS, pl.DataFrame([row]), {"day": day})


def record_none(workspace: Workspace, day: date) -> None:
    """Record that a day has trained no model, so that no earlier attempt of the day counts, nor its measures."""
    for table in (RELEVANCE_VERSIONS, RELEVANCE_MEASURES):
        workspace.tables.remove(table, {"day": day})


def relevance_version(workspace: Workspace, day: date) -> RelevanceVersion | None:
    """Return the newest model that passed the gate on ``day`` or before; None without one."""
    if not workspace.tables.exists(RELEVANCE_VERSIONS):
        return None
    rows = workspace.tables.scan(RELEVANCE_VERSIONS).filter(pl.col("passed") & (pl.col("day") <= day)).collect()
    if not len(rows):
        return None
    newest = rows.sort("day").row(-1, named=True)
    return RelevanceVersion(
        name=newest["version"],
        day=newest["day"],
        trained_until=newest["trained_until"],
        directory=workspace.home.relevance / newest["day"].isoformat(),
    )


def relevance_model(workspace: Workspace, day: date) -> RelevanceModel | None:
    """Return the relevance model that a day uses, loaded; None without one.

    Raises:
        Unreadable: a file of the model is missing or damaged.
    """
    from ml.relevance.relevance_model import RelevanceModel

    version = relevance_version(workspace, day)
    return None if version is None else RelevanceModel.load(version.directory)

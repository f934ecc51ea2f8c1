"""Putting an earlier champion back: what ``adseq rollback`` does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from assets.common.workspace import Workspace
from assets.steps.encode import encode_day, index_day, missing_days, renew_full_inference, write_item_embeddings
from assets.steps.publish import publish_day
from assets.steps.versions import PROMOTIONS, ModelVersion, item_versions, record_promotion
from warehouse.onsite_events import days_with_arrivals
from warehouse.states import USER_STATES, outdated_days, state_days


class NoEarlierChampion(LookupError):
    """No earlier champion to go back to; the message lists the versions."""


@dataclass(frozen=True)
class RolledBack:
    """The changes of a rollback."""

    before: str
    now: str
    day: date  # what is served is as of its end
    caught_up_days: int
    states: int  # published
    seconds: float


def roll_back(workspace: Workspace, to: str | None = None) -> RolledBack:
    """Make an earlier champion serve again, from the newest ingested day on.

    The states of the champion are caught up first, then the online store turns to the champion, then the alias moves.
    The record of the versions that served earlier days stays. After an interruption the same command goes on.

    Args:
        to: the version; by default the newest one that was champion before the present champion was trained.

    Raises:
        NoEarlierChampion: no version was champion before, or ``to`` was not.
    """
    tables, tracking = workspace.tables, workspace.tracking
    champion = tracking.champion()
    target = _target(workspace, champion, to)
    newest = days_with_arrivals(tables, workspace.landing)[-1]
    renew_full_inference(workspace, target)
    missing = missing_days(workspace, target, newest)
    inferred = set(state_days(tables, target.name)) - set(outdated_days(tables, USER_STATES, target.name))
    if newest > target.trained_day and newest not in inferred:
        missing.append(newest)
    for day in missing:
        encode_day(workspace, target, day)
    write_item_embeddings(workspace, target, newest)
    index_day(workspace, target, newest)
    published = publish_day(workspace, target, newest, target.name)
    record_promotion(tables, target.name)
    tracking.promote(target.kind, target.number)  # last: until then the same command means the same version
    return RolledBack(champion or "none", target.name, newest, len(missing), published.states, published.seconds)


def _target(workspace: Workspace, champion: str | None, to: str | None) -> ModelVersion:
    known, tables = item_versions(workspace.tables, workspace.home).all(), workspace.tables
    promoted = (
        set(tables.scan(PROMOTIONS).select(pl.col("model_version")).collect()["model_version"]) if known else set()
    )
    names = [version.name for version in known]
    until = names.index(champion) if champion in names else len(known)
    usable = [version for version in known[:until] if version.name in promoted]
    if to is not None:
        usable = [version for version in known if version.name == to and to in promoted]
    if not usable:
        was = ", ".join(name for name in names if name in promoted) or "none"
        raise NoEarlierChampion(
            f"There is no {'champion ' + to if to else 'champion before ' + str(champion)} to go back to. "
            f"Were champion: {was}."
        )
    return usable[-1]

"""The gate, and what happens to a version that passes it."""

from dataclasses import dataclass

import dagster as dg
import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.encode import encode_everyone, index_day, read_item_embeddings, write_item_embeddings
from assets.steps.period import training_day, training_period
from assets.steps.skip_without_items import require_items
from assets.steps.versions import ModelVersion, item_versions, record_promotion
from warehouse.states import snapshot_batches
from warehouse.tables import vectors


@dataclass(frozen=True)
class Decision:
    """Whether a candidate may become champion, and why."""

    candidate: ModelVersion
    passed: bool
    reason: str
    table: pl.DataFrame  # model, cutoff, recall@100, diversity90


def judge(workspace: Workspace) -> Decision:
    """Compare the newest version with the champion on conversions after both cut-offs.

    The candidate is judged by a twin that learnt until one window before the candidate's end: the deployed network has
    seen everything up to now, so nothing is left to judge that network on.

    Raises:
        NothingToLearn: the training had no item to learn.
        dagster.Failure: no version was ever trained.
    """
    known = item_versions(workspace.tables, workspace.home).all()
    if not known:
        require_items(workspace.tables, training_day(workspace.tables))
        raise dg.Failure("there is no trained version: materialize `item_model` first", allow_retries=False)
    candidate = known[-1]
    name = workspace.tracking.champion()
    empty = pl.DataFrame({"model": [], "recall@100": [], "diversity90": []})
    if name is None:
        return Decision(candidate, True, f"{candidate.name} is the first version: there is no champion to beat.", empty)
    if name == candidate.name:
        return Decision(candidate, True, f"{candidate.name} is champion already; its states are inferred anew.", empty)
    return _compare(workspace, candidate, item_versions(workspace.tables, workspace.home).named(name))


def _compare(workspace: Workspace, candidate: ModelVersion, champion: ModelVersion) -> Decision:
    from ml.evaluation.gate import judge_pair
    from ml.evaluation.model_names import ModelName
    from ml.models.version_directories import evaluation_part

    effective = workspace.settings
    period = training_period(workspace, candidate.trained_day)
    verdict = judge_pair(
        period,
        workspace.item_model(candidate.directory / evaluation_part(ModelName.contextual)),
        workspace.item_model(champion.deployed),
        settings=effective,
        names=(f"{candidate.name} (its twin of one window earlier)", f"{champion.name} (champion)"),
    )
    return Decision(candidate, verdict.passed, verdict.reason, verdict.table)


def promote(workspace: Workspace, version: ModelVersion) -> dict[str, str | int | float]:
    """Run full inference and build a first index as of the training day; last, move the alias.

    The alias moves only if all states and embeddings are finite.
    """
    tables, day = workspace.tables, version.trained_day
    users = encode_everyone(workspace, version)
    embedded = write_item_embeddings(workspace, version, day)
    built = index_day(workspace, version, day)
    states = (vectors(batch["state"]) for batch in snapshot_batches(tables, version.name, day))
    finite = bool(
        all(np.isfinite(each).all() for each in states)
        and np.isfinite(read_item_embeddings(tables, version, day)[1]).all()
    )
    if finite:
        record_promotion(tables, version.name)
        workspace.tracking.promote(version.kind, version.number)
    return {
        "full_inference_users": users,
        "items": embedded.items,
        f"index_recall@{min(100, built.items)}": built.recall,
        "all_finite": finite,
    }

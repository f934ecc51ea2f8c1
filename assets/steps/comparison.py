"""The comparison of the newest item model with its baselines: what all reports of a training read, made once a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.period import training_day, training_period
from assets.steps.skip_without_items import require_items
from assets.steps.versions import ModelVersion, item_versions
from warehouse.identity import external_ids
from warehouse.world import is_world, oracle_ranking

if TYPE_CHECKING:
    from ml.evaluation.item_report import Comparison
    from ml.evaluation.metrics import Metrics
    from ml.evaluation.model_names import ModelName
    from ml.examples.period import TrainingPeriod
    from ml.retrieval.lists import RankedLists

FUTURES = 40
HEADLINE_KS = (10, 50, 100)


@dataclass(frozen=True)
class VersionComparison:
    """The newest trained version, the period it learnt from, and its comparison models on the newest window."""

    version: ModelVersion
    period: TrainingPeriod
    comparison: Comparison

    @property
    def headline_k(self) -> int:
        """Return 100, or for a smaller catalogue the largest usual list length that still says something."""
        from ml.evaluation.metrics import usable_ks

        return max(usable_ks(HEADLINE_KS, len(self.comparison.item_ids)))

    @property
    def window(self) -> str:
        """Return the measured window in words."""
        return f"Conversions of the {self.period.rule.window_days:g} days up to {self.version.trained_day}"


def newest_comparison(workspace: Workspace) -> VersionComparison:
    """Return the comparison of the newest trained version.

    Raises:
        NothingToLearn: the training had no item to learn.
        dagster.Failure: nothing has been trained.
    """
    known = item_versions(workspace.tables, workspace.home).all()
    if not known:
        require_items(workspace.tables, training_day(workspace.tables))
        raise dg.Failure("there is no trained version: materialize `item_model` first", allow_retries=False)
    return workspace.once("comparison", known[-1].name, lambda: _load(workspace, known[-1]))


def _load(workspace: Workspace, version: ModelVersion) -> VersionComparison:
    from ml.evaluation.item_report import load_comparison
    from ml.evaluation.model_names import TRAINED
    from ml.models.version_directories import evaluation_part

    artifacts = {model: workspace.item_model(version.directory / evaluation_part(model)) for model in TRAINED}
    period = training_period(workspace, version.trained_day)
    return VersionComparison(version, period, load_comparison(period, artifacts, workspace.settings))


def evaluation_lists_of(workspace: Workspace, comparison: Comparison) -> pl.DataFrame:
    """Return the lists of every model, as deep as the deepest requested K or as the whole catalogue."""
    from ml.evaluation.item_report import comparison_lists, lists_to_frame

    return lists_to_frame(comparison_lists(comparison, _depth(workspace, comparison)), comparison.user_ids)


def oracle_lists(workspace: Workspace, compared: VersionComparison) -> pl.DataFrame:
    """Return the oracle's lists (user_id, items: candidate rows) for a sample of the users.

    The frame is empty where there is no oracle.
    """
    schema = {"user_id": pl.String(), "items": pl.List(pl.Int32())}
    window, comparison = compared.period.rule.window_days, compared.comparison
    if not is_world(workspace.landing.root) or window != int(window):
        return pl.DataFrame(schema=schema)
    users = comparison.user_ids
    if len(users) > workspace.settings.evaluation.oracle_users:
        users = users.sample(workspace.settings.evaluation.oracle_users, seed=workspace.settings.training.seed).sort()
    external = external_ids(workspace.tables, users)
    ranking = oracle_ranking(
        workspace.landing.root,
        compared.version.trained_day - timedelta(days=int(window)),
        external.to_list(),
        item_ids=comparison.item_ids.to_list(),
        window_days=window,
        futures=FUTURES,
        depth=_depth(workspace, comparison),
    )
    rows = pl.DataFrame({"item_id": comparison.item_ids}).with_row_index("row")
    key_of = dict(zip(external, users, strict=True))
    return (
        ranking.with_columns(pl.col("user_id").replace_strict(key_of))
        .join(rows, on="item_id", how="left")
        .sort("user_id", "rank")
        .group_by("user_id", maintain_order=True)
        .agg(items=pl.col("row").cast(pl.Int32))
    )


def stored_lists(workspace: Workspace, compared: VersionComparison) -> dict[ModelName, RankedLists]:
    """Return the lists that ``evaluation_lists`` stored."""
    from ml.evaluation.item_report import lists_of_frame

    stored = workspace.tables.read("evaluation_lists", {"model_version": compared.version.name})
    return lists_of_frame(stored, compared.comparison.user_ids)


def measured(workspace: Workspace, compared: VersionComparison) -> Mapping[ModelName, Metrics]:
    """Return all figures of the stored lists, the oracle's included, which are measured once a run."""
    return workspace.once("figures", compared.version.name, lambda: _measure(workspace, compared))


def _measure(workspace: Workspace, compared: VersionComparison) -> dict[ModelName, Metrics]:
    from ml.evaluation.item_report import measure, narrowed
    from ml.evaluation.model_names import ModelName
    from ml.retrieval.lists import RankedLists

    comparison = compared.comparison
    ks = sorted({*workspace.settings.evaluation.ks, compared.headline_k})
    found = {model: measure(comparison, lists, ks) for model, lists in stored_lists(workspace, compared).items()}
    oracle = workspace.tables.read("oracle_lists", {"model_version": compared.version.name})
    if len(oracle):
        queries = np.flatnonzero(comparison.user_ids.is_in(oracle["user_id"].implode()).to_numpy())
        ranked = oracle.sort("user_id")["items"].to_list()
        lists = RankedLists.from_rows(ranked, max(len(row) for row in ranked))
        found[ModelName.oracle] = measure(narrowed(comparison, queries), lists, ks)
    return found


def _depth(workspace: Workspace, comparison: Comparison) -> int:
    return min(max(100, *workspace.settings.evaluation.ks), len(comparison.item_ids))

"""The comparison of the newest item model with its baselines: what all reports of a training read, made once a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from assets.common.workspace import Workspace
from assets.steps.period import training_day, training_period
from assets.steps.skip_without_items import require_items
from assets.steps.versions import ModelVersion, item_versions
from warehouse.as_of import arrived_by
from warehouse.contracts import LandingTable
from warehouse.hidden_items import hidden_items
from warehouse.identity import external_ids
from warehouse.surfaces import Carries, Surface
from warehouse.tables import Tables
from warehouse.world import is_world, oracle_ranking

if TYPE_CHECKING:
    from ml.evaluation.contextual_requests import HiddenItems
    from ml.evaluation.item_report import Comparison
    from ml.evaluation.metrics import Metrics
    from ml.evaluation.model_names import ModelName
    from ml.evaluation.untrained_parts import UntrainedParts
    from ml.examples.period import TrainingPeriod
    from ml.retrieval.lists import RankedLists

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
    from ml.evaluation.model_names import ADDITIONAL, TRAINED
    from ml.models.version_directories import evaluation_part

    # Which additional models there are, the settings of that training said.
    additional = [model for model in ADDITIONAL if (version.directory / evaluation_part(model)).exists()]
    artifacts = {
        model: workspace.item_model(version.directory / evaluation_part(model)) for model in (*TRAINED, *additional)
    }
    period = training_period(workspace, version.trained_day)
    return VersionComparison(version, period, load_comparison(period, artifacts, workspace.settings))


def chosen_parts(workspace: Workspace, compared: VersionComparison) -> UntrainedParts:
    """Return the parts without training, with weights from a slice before the comparison's window."""
    from ml.evaluation.untrained_parts import choose_weights

    comparison = compared.comparison
    earlier = compared.period.until(comparison.cutoff)
    impressions, hidden = read_impressions(workspace.tables, compared.version.trained_day), hidden_items_of(workspace)
    return workspace.once(
        "parts", compared.version.name, lambda: choose_weights(earlier, impressions, comparison.settings, hidden)
    )


def hidden_items_of(workspace: Workspace) -> HiddenItems:
    """Return the function from logged requests and candidates to the items that the requests could not show."""
    return partial(hidden_items, workspace.tables, workspace.landing)


def read_impressions(tables: Tables, day: date) -> pl.DataFrame | None:
    """Return the impressions that had arrived by ``day`` on surfaces whose requests carry a subject item or a query.

    None where no impressions have ever arrived.
    """
    if not tables.exists("impressions"):
        return None
    surfaces = [*Surface.carrying(Carries.subject), *Surface.carrying(Carries.query)]
    return arrived_by(tables, LandingTable.impressions, day).filter(pl.col("surface").is_in(surfaces)).collect()


def evaluation_lists_of(workspace: Workspace, compared: VersionComparison) -> pl.DataFrame:
    """Return the lists of every model, as deep as the deepest requested K or as the whole catalogue.

    Where the log is the synthetic world, the lists of the world's oracle are among them.
    """
    from ml.evaluation.item_report import comparison_lists, lists_to_frame
    from ml.evaluation.model_names import ModelName

    comparison = compared.comparison
    lists = comparison_lists(comparison, chosen_parts(workspace, compared), _depth(workspace, comparison))
    oracle = _oracle_lists(workspace, compared)
    if oracle is not None:
        lists[ModelName.oracle] = oracle
    return lists_to_frame(lists, comparison.user_ids)


def _oracle_lists(workspace: Workspace, compared: VersionComparison) -> RankedLists | None:
    """Return the lists of the world's oracle; None where there is none."""
    from ml.features.event_log import row_numbers
    from ml.retrieval.lists import RankedLists

    window, comparison = compared.period.rule.window_days, compared.comparison
    if not is_world(workspace.landing.root) or window != int(window):
        return None
    users = external_ids(workspace.tables, comparison.user_ids)
    depth = _depth(workspace, comparison)
    ranking = oracle_ranking(
        workspace.landing.root,
        compared.version.trained_day - timedelta(days=int(window)),
        users.to_list(),
        item_ids=comparison.item_ids.to_list(),
        window_days=window,
        futures=workspace.settings.evaluation.oracle_futures,
        depth=depth,
    )
    return RankedLists.from_places(
        row_numbers(users, ranking["user_id"]),
        ranking["rank"].to_numpy() - 1,
        row_numbers(comparison.item_ids, ranking["item_id"]),
        queries=len(users),
        depth=depth,
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
    from ml.evaluation.item_report import measure

    comparison = compared.comparison
    ks = sorted({*workspace.settings.evaluation.ks, compared.headline_k})
    return {model: measure(comparison, lists, ks) for model, lists in stored_lists(workspace, compared).items()}


def _depth(workspace: Workspace, comparison: Comparison) -> int:
    return min(max(100, *workspace.settings.evaluation.ks), len(comparison.item_ids))

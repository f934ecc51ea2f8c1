"""What the assets of the item model do in a home whose log has no item to learn: each materializes nothing and says
why, so that the advertiser model and its days go on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import wraps
from typing import ParamSpec

import dagster as dg

from ml.examples.nothing_to_learn import NothingToLearn
from warehouse.item_trainings import WITHOUT_ITEMS, why_without_items
from warehouse.tables import Tables

Arguments = ParamSpec("Arguments")


def needs_items(compute: Callable[Arguments, dg.MaterializeResult]) -> Callable[Arguments, dg.MaterializeResult]:
    """Decorate an asset of the item model: where the item model has nothing to learn, the asset is empty.

    The metadata of an empty asset says why. Its checks pass, since nothing could be wrong.
    """

    @wraps(compute)
    def compute_or_say_why(*args: Arguments.args, **kwargs: Arguments.kwargs) -> dg.MaterializeResult:
        try:
            return compute(*args, **kwargs)
        except NothingToLearn as reason:
            checks = dg.AssetExecutionContext.get().selected_asset_check_keys
            return dg.MaterializeResult(
                metadata={"dagster/row_count": 0, "why": str(reason)},
                check_results=[
                    dg.AssetCheckResult(check_name=check.name, passed=True, description=str(reason)) for check in checks
                ],
            )

    return compute_or_say_why


def require_items(tables: Tables, day: date) -> None:
    """Raise unless the training as of ``day`` has items to learn.

    Raises:
        NothingToLearn: the training has no items.
    """
    if why := why_without_items(tables, day):
        raise NothingToLearn(why)


def require_items_by(tables: Tables, day: date) -> None:
    """Raise if a training as of ``day`` or before had no items; for callers that found no item model.

    Raises:
        NothingToLearn: there was such a training.
    """
    days = [each for each in tables.days(WITHOUT_ITEMS, "as_of") if each <= day]
    if days:
        require_items(tables, days[-1])

"""The check on places that hold items nobody has engaged with."""

from __future__ import annotations

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets.inference import never_engaged_check
from assets.steps.encode import BuiltIndex


def built(share: float | None) -> BuiltIndex:
    users, queries = pl.Series(["u", "v"]), np.zeros((2, 4), np.float32)
    return BuiltIndex(300, "exact", 1, 0.1, 1.0, queries[:, 0], share, 0.3, "indexes", users, queries)


@pytest.mark.parametrize(("share", "passed"), [(None, True), (0.25, True), (0.256, False)])
def test_too_many_such_places_warn_with_both_shares(share: float | None, passed: bool) -> None:
    result = never_engaged_check(built(share), 0.25)
    assert result.passed == passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    if not passed:
        assert "25.6%" in (result.description or "")
        assert "30.0% of the index" in (result.description or "")

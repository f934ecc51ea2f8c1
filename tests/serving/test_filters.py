"""Filters hold, and as many candidates come back as exist."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from serving.contracts import Filters
from serving.publication import Served
from tests.serving.test_answer import asked, ids

pytestmark = pytest.mark.slow
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("filters", "rule"),
    [
        ({"minimum_price": 20, "maximum_price": 60}, pl.col("amount").is_between(20, 60)),
        ({"country": "DE"}, pl.col("countries").is_null() | pl.col("countries").list.contains("DE")),
        ({"country": "nowhere"}, pl.col("countries").is_null()),
        ({"maximum_price": 0.01}, pl.lit(False)),
    ],
)
@pytest.mark.parametrize("user_id", ["USER", "nobody"])
def test_what_comes_back_is_all_that_the_filter_leaves(
    client: TestClient, served: Served, user: str, filters: dict[str, Any], rule: pl.Expr, user_id: str
) -> None:
    listed = served.catalogue.frame[served.catalogue.listed.tolist()]
    if (ads := served.catalogue.eligibility.ads) is not None:
        listed = listed.filter(ads.view(filters.get("country")).shown)
    allowed = set(listed.filter(rule)["item_id"])
    answer = asked(client, user_id=user if user_id == "USER" else user_id, k=500, filters=filters)
    assert set(ids(answer)) <= allowed
    if user_id == "nobody":  # who has no history that is left out
        assert len(ids(answer)) == min(500, len(allowed))


def test_blocked_advertisers_do_not_appear(client: TestClient, user: str) -> None:
    first = [candidate["advertiser_id"] for candidate in asked(client, user_id=user, k=50)["candidates"]]
    blocked = sorted(set(first))[:5]
    answer = asked(client, user_id=user, k=50, filters={"blocked_advertisers": [*blocked, "no such advertiser"]})
    assert not set(blocked) & {candidate["advertiser_id"] for candidate in answer["candidates"]}
    assert len(answer["candidates"]) == 50


def test_the_users_own_country_counts_unless_another_is_asked_for(client: TestClient, served: Served) -> None:
    restricted = served.catalogue.frame.filter(pl.col("countries").is_not_null())
    assert len(restricted)
    there = asked(client, user_id="nobody", k=500, demographics={"country": "nowhere"})
    assert not set(ids(there)) & set(restricted["item_id"])
    elsewhere = asked(client, user_id="nobody", k=500, demographics={"country": "nowhere"}, filters={"country": "DE"})
    assert set(ids(elsewhere)) & set(restricted["item_id"])


def test_what_is_sold_out_is_left_out_unless_asked_for(served: Served) -> None:
    stated = ["In Stock", "Out of Stock", None, "sold out"] * (len(served.catalogue) // 4 + 1)
    frame = served.catalogue.frame.with_columns(availability=pl.Series(stated[: len(served.catalogue)]))
    catalogue = replace(served.catalogue, frame=frame, ads=None)
    expected = (
        frame["availability"].gather(catalogue.listed).is_in(["In Stock"])
        | frame["availability"].gather(catalogue.listed).is_null()
    )
    assert catalogue.allowed(Filters(), None, NOW).tolist() == expected.to_list()
    assert catalogue.allowed(Filters(include_unavailable=True), None, NOW).all()

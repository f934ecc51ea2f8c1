"""What the table of scored candidates says of a request."""

from __future__ import annotations

import polars as pl
import pytest

from assets.steps.score_candidates import SCORED_CANDIDATES
from tests.assets.world import DAYS
from tests.flow import Ran
from warehouse.identity import UserKeys

pytestmark = pytest.mark.slow


def test_requests_are_told_apart_by_hashes_that_lead_to_nobody_without_the_secret(ran: Ran) -> None:
    keys = UserKeys.of(ran.tables, ran.landing)
    for day in DAYS[-2:]:
        scored = ran.tables.read(SCORED_CANDIDATES, {"day": day})
        in_context = pl.col("subject_item_id").is_not_null() | pl.col("query").is_not_null()
        logged = ran.tables.read("impressions", {"arrival_date": day}).filter(in_context)
        sizes = logged.group_by("request_id").len().rows()
        assert len(sizes) > 10
        assert dict(scored.group_by("request_id").len().rows()) == {
            keys.key(f"{day} {request}"): size for request, size in sizes
        }

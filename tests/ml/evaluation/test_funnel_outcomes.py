"""Outcomes of the funnel: counted by hand, adding up, and intervals that cover the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ml.evaluation.funnel_outcomes import UNNAMED, Stages, funnel_rows
from ml.evaluation.report_rows import ReportRow

STAGES = Stages(["retrieved", "trimmed", "ranked", "auctioned", "impressed", "clicked", "converted"])


def log(rows: Sequence[tuple[str, str, str | None, str]]) -> pl.DataFrame:
    """Candidates: user, surface, generator, furthest stage."""
    frame = pl.DataFrame(rows, schema=["user_id", "surface", "source", "stage"], orient="row")
    return frame.with_columns(inclusion_probability=pl.lit(None, pl.Float64))


def figures(rows: list[ReportRow]) -> dict[tuple[str, str, str], float | None]:
    return {(row.group, row.model, row.metric): row.value for row in rows}


def test_a_log_counted_by_hand() -> None:
    found = figures(
        funnel_rows(
            log(
                [
                    ("x", "search", "ours", "retrieved"),
                    ("x", "search", "ours", "impressed"),
                    ("x", "search", "legacy", "clicked"),
                    ("y", "search", "ours", "converted"),
                    ("y", "search", "legacy", "trimmed"),
                    ("z", "home_feed", None, "ranked"),
                ]
            ),
            STAGES,
            samples=0,
            seed=0,
        )
    )
    assert {key[:2] for key in found} == {("search", "ours"), ("search", "legacy"), ("home_feed", UNNAMED)}
    ours = {
        metric: value for (surface, source, metric), value in found.items() if (surface, source) == ("search", "ours")
    }
    assert (ours["retrieved"], ours["delivered"]) == (3, 2)
    assert ours["survival_rate"] == ours["share_of_impressions"] == 2 / 3
    assert (ours["click_rate"], ours["conversion_rate"]) == (0.5, 1.0)
    assert (ours["reached_trimmed"], ours["reached_clicked"]) == (2 / 3, 1 / 3)
    assert found["search", "legacy", "conversion_rate"] == 0.0
    assert found["home_feed", UNNAMED, "delivered"] == 0
    assert found["home_feed", UNNAMED, "share_of_impressions"] is None  # nothing was delivered there
    assert found["home_feed", UNNAMED, "click_rate"] is None


candidates = st.tuples(
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from(["search", "home_feed"]),
    st.sampled_from(["ours", "legacy", None]),
    st.sampled_from(STAGES.names),
)


@given(st.lists(candidates, min_size=1, max_size=20))
def test_shares_add_up_and_stages_only_lose(rows: list[tuple[str, str, str | None, str]]) -> None:
    found = figures(funnel_rows(log(rows), STAGES, samples=3, seed=0))
    for surface in {surface for surface, _, _ in found}:
        shares = [
            value for (of, _, metric), value in found.items() if (of, metric) == (surface, "share_of_impressions")
        ]
        known = [share for share in shares if share is not None]
        assert not known or math.isclose(sum(known), 1)
    for surface, source in {key[:2] for key in found}:
        reached = [found[surface, source, f"reached_{stage}"] or 0.0 for stage in STAGES.names[1:]]
        assert sorted(reached, reverse=True) == reached
        assert reached[3] == found[surface, source, "survival_rate"]
    assert sum(value or 0 for (_, _, metric), value in found.items() if metric == "retrieved") == len(rows)


def test_candidates_that_are_logged_with_a_probability_stand_for_the_others() -> None:
    """Half of the candidates that were not delivered are logged, and all impressions: survival is one of five."""
    rows = log([("x", "search", "ours", "ranked")] * 4 + [("x", "search", "ours", "impressed")] * 2)
    shown = pl.col("stage") == "impressed"
    thinned = rows.with_columns(inclusion_probability=pl.when(shown).then(1.0).otherwise(0.5))
    found = figures(funnel_rows(thinned, STAGES, samples=0, seed=0))
    assert found["search", "ours", "retrieved"] == 10
    assert found["search", "ours", "delivered"] == 2
    assert found["search", "ours", "survival_rate"] == 0.2


def test_intervals_are_over_users_and_cover_the_truth_about_as_often_as_they_say() -> None:
    """Both candidates of a user survive or neither does, so that candidates alone would seem twice as certain."""
    random, truth, covered = np.random.default_rng(0), 0.3, 0
    for repeat in range(60):
        survives = random.random(150) < truth
        rows = [
            (f"u{user}", "search", "ours", "impressed" if each else "ranked")
            for user, each in enumerate(survives)
            for _ in range(2)
        ]
        found = funnel_rows(log(rows), STAGES, samples=100, seed=repeat)
        (row,) = [each for each in found if each.metric == "survival_rate"]
        assert row.low is not None
        assert row.high is not None
        covered += row.low <= truth <= row.high
    assert covered >= 51  # of 60, where 57 are expected

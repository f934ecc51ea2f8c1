"""The fraction relevant through the funnel: by hand, weighted, and with intervals that hold the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from ml.relevance.funnel_fractions import funnel_fractions
from ml.relevance.judgements import judged

STAGES = ["retrieved", "trimmed", "ranked", "auctioned", "impressed", "clicked", "converted"]


def log(rows: Sequence[tuple[str, str, str, float | None, float | None]]) -> pl.DataFrame:
    """Judged candidates: request, category, furthest stage, relevant, inclusion probability."""
    schema = ["request_id", "category", "stage", "relevant", "inclusion_probability"]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(
        log=pl.lit("impressions"),
        arm=pl.lit("production"),
        surface=pl.lit("search"),
        content_type=pl.lit("video"),
        judge=pl.lit("model"),
    )


def test_a_funnel_counted_by_hand() -> None:
    found = funnel_fractions(
        log(
            [
                ("a", "Home", "retrieved", 0.0, 0.5),  # counts twice
                ("a", "Home", "impressed", 1.0, 1.0),
                ("b", "Toys", "trimmed", 0.5, 0.5),
                ("b", "Toys", "clicked", 0.0, None),
                ("b", "Toys", "clicked", None, None),  # nobody judged it
            ]
        ),
        STAGES,
        samples=0,
        seed=0,
    )
    total = {row["stage"]: row for row in found.filter(segment="all").iter_rows(named=True)}
    assert list(total) == STAGES[:-1]  # no candidate converted
    assert total["retrieved"]["fraction"] == pytest.approx((2 * 0 + 1 + 2 * 0.5 + 0) / 6)
    assert total["trimmed"]["fraction"] == pytest.approx((1 + 2 * 0.5 + 0) / 4)
    assert total["impressed"]["fraction"] == total["ranked"]["fraction"] == 0.5
    assert total["clicked"]["fraction"] == 0.0
    assert total["trimmed"]["change"] == pytest.approx(2 / 4 - 2 / 6)
    assert total["retrieved"]["change"] is None
    assert (total["retrieved"]["candidates"], total["retrieved"]["requests"]) == (4, 2)
    of_toys = found.filter((pl.col("segment") == "category") & (pl.col("group") == "Toys"))
    assert of_toys["fraction"].to_list() == pytest.approx([1 / 3, 1 / 3, 0, 0, 0, 0])


def test_labels_go_before_the_model() -> None:
    candidates = pl.DataFrame(
        {
            "surface": ["search"] * 3,
            "subject_item_id": pl.Series([None] * 3, dtype=pl.String),
            "query": ["lamp", "lamp", None],
            "item_id": ["x", "y", "z"],
            "trim_score": [0.2, 0.2, 0.2],
            "relevance": [0.1, 0.1, 0.1],
        }
    )
    labels = candidates[[0, 0, 2]].select(
        "surface", "subject_item_id", "query", "item_id",
        rater_id=pl.Series(["ann", "bob", "ann"]), label=pl.Series([4, 2, 5]), labelled_at=pl.lit(0),
    )  # fmt: skip
    found = judged(candidates, labels, relevant_label=4)
    assert found.select("relevant", "gain", "judge").rows() == [
        (0.5, 0.5, "labels"),
        (0.2, 0.1, "model"),
        (None, None, None),  # neither beside an item nor of a search: there is nothing to be relevant to
    ]
    known = candidates.with_columns(true_relevant=pl.Series([0.7, None, 1.0]), true_relevance=pl.Series([0.6, None, 1]))
    assert judged(known, labels, relevant_label=4).select("relevant", "gain", "judge").rows() == [
        (0.7, 0.6, "truth"),
        (0.2, 0.1, "model"),
        (None, None, None),
    ]


def test_intervals_hold_the_truth_of_a_sampled_log() -> None:
    """A third of the other candidates is logged, and all of those that were shown."""
    generator = np.random.default_rng(3)
    requests, each = 150, 20
    request = np.arange(requests).repeat(each)
    holding: list[bool] = []
    for _ in range(60):
        of_request = generator.normal(0, 1, requests)[request]
        relevant = of_request + generator.normal(0, 1, len(request)) > 0.3
        shown = generator.random(len(request)) < np.where(relevant, 0.4, 0.1)
        logged = shown | (generator.random(len(request)) < 1 / 3)
        rows = [
            (f"r{number}", "Home", "impressed" if was_shown else "retrieved", float(fits), 1.0 if was_shown else 1 / 3)
            for number, was_shown, fits in zip(request[logged], shown[logged], relevant[logged], strict=True)
        ]
        found = funnel_fractions(log(rows), STAGES, samples=100, seed=0)
        total = {row["stage"]: row for row in found.filter(segment="all").iter_rows(named=True)}
        truth = 0.4163  # P(N(0, 2) > .3)
        holding.append(total["retrieved"]["low"] <= truth <= total["retrieved"]["high"])
        assert total["trimmed"]["change_low"] > 0.1  # of relevant candidates four times as many are shown
    assert np.mean(holding) >= 0.85


def test_nothing_judged_is_no_row() -> None:
    assert funnel_fractions(log([("a", "Home", "retrieved", None, None)]), STAGES, samples=10, seed=0).is_empty()


def test_the_holdout_does_not_count_and_a_candidate_without_a_type_does() -> None:
    rows = log(
        [("a", "Home", "trimmed", 0.0, 1.0), ("a", "Home", "ranked", 1.0, 1.0), ("b", "Home", "ranked", 0.0, 1.0)]
    )
    arms = rows.with_columns(
        arm=pl.Series(["production", "production", "holdout"]), content_type=pl.lit(None, pl.String)
    )
    found = funnel_fractions(arms, STAGES, samples=0, seed=0)
    of_type = found.filter(segment="content_type").select("group", "stage", "fraction", "candidates").rows()
    assert of_type == [("unknown", "retrieved", 0.5, 2), ("unknown", "trimmed", 0.5, 2), ("unknown", "ranked", 1.0, 1)]


def test_the_stages_before_the_place_are_those_of_the_services_sample() -> None:
    """The impressions hold what was shown and none of what was dropped, and say nothing of the stages before."""
    shown = log([("a", "Home", "impressed", 1.0, 1.0), ("a", "Home", "clicked", 1.0, 1.0)])
    rows = [
        ("s", "Home", "trimmed", 0.0, 0.01),
        ("s", "Home", "auctioned", 1.0, 0.01),
        ("s", "Home", "ranked", 0.0, 0.01),
    ]
    sampled = log(rows).with_columns(log=pl.lit("funnel_sample"))
    of_beside = shown.with_columns(surface=pl.lit("related_pins"), request_id=pl.lit("p"))  # which nobody samples
    found = funnel_fractions(pl.concat([shown, sampled, of_beside]), STAGES, samples=0, seed=0)

    def fractions(segment: str, group: str) -> dict[str, float]:
        rows = found.filter(segment=segment, group=group)
        return dict(rows.select("stage", "fraction").rows())

    assert fractions("surface", "search") == pytest.approx(
        {"retrieved": 1 / 3, "trimmed": 1 / 3, "ranked": 1 / 2, "auctioned": 1, "impressed": 1, "clicked": 1}
    )
    assert fractions("surface", "related_pins") == dict.fromkeys(STAGES[:-1], 1.0)
    assert fractions("all", "")["retrieved"] == pytest.approx((100 + 2) / (300 + 2))

"""The labelling queue: who comes first, how strata share the places, and sums that are unbiased."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.relevance.candidates import CANDIDATES
from ml.relevance.judgements import PAIR
from ml.relevance.labelling_queue import QUEUE, STRATA, next_pairs, shared_out

LABELS = pl.Schema({**{name: pl.String() for name in PAIR}, "rater_id": pl.String()})
FEEDBACK = pl.Schema({**{name: pl.String() for name in PAIR}, "given_at": pl.Datetime("us", "UTC")})
NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)


def candidate(item_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "request_id": "r1",
        "surface": "related_pins",
        "subject_item_id": "chair",
        "item_id": item_id,
        "content_type": "shopping",
        "stage": "ranked",
        "inclusion_probability": 0.5,
    } | changed


def queue(
    candidates: Sequence[dict[str, Any]],
    labels: Sequence[tuple[str, str]] = (),
    reports: Sequence[str] = (),
    *,
    pairs: int = 100,
    seed: int = 0,
    unknown: Sequence[str] = (),
) -> pl.DataFrame:
    """The queue of one subject's candidates; labels are (item, rater), reports are items.

    The catalogue has all that is named, except the ``unknown``.
    """
    place = {"surface": "related_pins", "subject_item_id": "chair", "query": None}
    judged = [place | {"item_id": item, "rater_id": rater} for item, rater in labels]
    named = [
        place | {"item_id": item, "given_at": NOON + timedelta(minutes=number)} for number, item in enumerate(reports)
    ]
    named_items = {"chair", *reports, *(row["item_id"] for row in candidates)}
    found = next_pairs(
        pl.DataFrame(candidates, schema=CANDIDATES),
        pl.DataFrame(judged, schema=LABELS),
        pl.DataFrame(named, schema=FEEDBACK),
        catalogue=pl.Series(sorted(named_items - set(unknown)), dtype=pl.String),
        pairs=pairs,
        raters_per_pair=2,
        generator=np.random.default_rng(seed),
    )
    assert found.schema == QUEUE
    assert found["position"].to_list() == list(range(found.height))
    assert not found.select(PAIR).is_duplicated().any()
    return found


def test_a_pair_that_has_enough_raters_is_done_and_one_with_fewer_names_them() -> None:
    found = queue([candidate(item) for item in "abc"], [("a", "ann"), ("a", "bob"), ("b", "ann"), ("b", "ann")])
    assert dict(found.select("item_id", "rater_ids").iter_rows()) == {"b": ["ann"], "c": []}
    assert set(found["inclusion_probability"]) == {0.5}  # all pairs of the stratum are drawn: the log decides


def test_reported_and_drawn_pairs_take_turns_the_most_often_reported_at_the_head() -> None:
    candidates = [candidate(item) for item in "abcdefgh"]
    reports = ["x", "y", "y", "done"]
    found = queue(candidates, [("done", "ann"), ("done", "bob")], reports, pairs=3)
    assert found.height == 5
    assert found["reason"].to_list() == ["reported", "drawn", "reported", "drawn", "drawn"]
    assert found["item_id"].to_list()[:3:2] == ["y", "x"]
    drawn = pytest.approx(0.5 * 3 / 8)
    assert found["inclusion_probability"].to_list() == [None, drawn, None, drawn, drawn]


def test_a_pair_that_is_drawn_and_reported_keeps_its_probability() -> None:
    found = queue([candidate("a"), candidate("b")], reports=["a", "a", "z"])
    assert found["reason"].to_list() == ["reported", "drawn", "drawn"]
    assert dict(found.select("item_id", "inclusion_probability").iter_rows()) == {"z": None, "a": 0.5, "b": 0.5}


def test_of_a_flood_of_reports_so_many_come_as_pairs_are_drawn() -> None:
    found = queue([candidate(item) for item in "abcd"], reports=[f"x{number}" for number in range(50)], pairs=3)
    assert found["reason"].to_list() == ["reported", "drawn"] * 3


def test_raters_get_only_items_of_the_catalogue() -> None:
    candidates = [candidate("a"), candidate("gone"), candidate("b", subject_item_id="gone, too")]
    found = queue(candidates, reports=["x", "invented", "invented"], unknown=["gone", "gone, too", "invented"])
    assert found["item_id"].to_list() == ["x", "a"]
    searched = candidate("a", surface="search", subject_item_id=None, query="lamp")
    assert queue([searched], reports=["x"], unknown=["chair"])["item_id"].to_list() == ["a"]


def test_what_the_catalogue_lacks_takes_no_place_of_a_stratum() -> None:
    found = queue([candidate(item) for item in "abcd"], pairs=2, unknown=["a", "b"])
    assert set(found["item_id"]) == {"c", "d"}
    assert set(found["inclusion_probability"]) == {0.5}


def test_strata_share_the_places_equally_and_each_has_one_at_least() -> None:
    many = [candidate(f"many-{number}") for number in range(40)]
    others = [
        candidate("video", content_type="video"),
        candidate("shown", stage="impressed"),
        candidate("searched", surface="search", subject_item_id=None, query="lamp"),
        candidate("unknown", content_type=None),
    ]
    found = queue(many + others, pairs=12)
    counts = dict(
        found.group_by("content_type", "stage", "surface").len().select("len").to_series().value_counts().iter_rows()
    )
    assert counts == {1: 4, 8: 1}
    by_item = dict(found.select("item_id", "inclusion_probability").iter_rows())
    assert by_item["unknown"] == by_item["shown"] == by_item["video"] == by_item["searched"] == 0.5
    assert found.filter(pl.col("item_id").str.starts_with("many"))["inclusion_probability"].unique().to_list() == [
        pytest.approx(0.5 * 8 / 40)
    ]


def test_deciles_are_those_of_the_day_and_without_a_score_there_is_one_stratum() -> None:
    scored = [candidate(f"i{number:02}", relevance=number / 100) for number in range(20)]
    found = queue([*scored, candidate("without")], pairs=100)
    deciles = dict(found.sort("item_id").select("item_id", "score_decile").iter_rows())
    assert [deciles[f"i{number:02}"] for number in range(20)] == [number // 2 for number in range(20)]
    assert deciles["without"] is None
    assert queue([candidate("a"), candidate("b")])["score_decile"].to_list() == [None, None]


def test_candidates_without_a_subject_and_a_query_are_nothing_to_judge() -> None:
    assert queue([candidate("a", subject_item_id=None, surface="home_feed")]).height == 0
    assert queue([]).height == 0


def test_a_pair_of_several_requests_comes_once() -> None:
    stages = {
        queue([candidate("a"), candidate("a", request_id="r2", stage="impressed")], seed=seed)["stage"][0]
        for seed in range(20)
    }
    assert stages == {"ranked", "impressed"}


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = [candidate(f"i{number}", stage=stage) for number in range(30) for stage in ("ranked", "trimmed")]
    shuffled = [rows[at] for at in np.random.default_rng(1).permutation(len(rows))]
    assert queue(rows, pairs=7, seed=5).equals(queue(shuffled, pairs=7, seed=5))
    assert not queue(rows, pairs=7, seed=5).equals(queue(rows, pairs=7, seed=6))


@settings(max_examples=200, derandomize=True, database=None)
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(0, 60))
def test_places_are_shared_out_to_the_last_and_as_equally_as_the_strata_allow(sizes: list[int], places: int) -> None:
    have = np.array(sizes, np.int64)
    sure, chance = shared_out(have, places)
    assert sure.sum() + chance.sum() == pytest.approx(min(places, have.sum()))
    assert (sure + np.ceil(chance) <= have).all()
    assert ((chance >= 0) & (chance < 1)).all()
    open_ones = have > sure
    assert len(set(sure[open_ones])) <= 1
    assert (sure[~open_ones] <= sure[open_ones].max(initial=10**6)).all()
    if places >= len(have):
        assert (sure >= 1).all()


@settings(max_examples=3, derandomize=True, database=None, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40))
def test_sums_over_the_queue_are_unbiased(seed: int, pairs: int) -> None:
    """Horvitz and Thompson's estimates of a total over the pool and of each stratum's size, over many draws."""
    world = np.random.default_rng(seed)
    pool = [
        candidate(
            f"i{number:03}",
            stage=str(world.choice(["retrieved", "ranked", "impressed"], p=[0.7, 0.25, 0.05])),
            content_type=str(world.choice(["shopping", "video"], p=[0.9, 0.1])),
            relevance=float(world.random()) if number % 3 else None,
            inclusion_probability=1.0,
        )
        for number in range(120)
    ]
    value = {row["item_id"]: float(world.random()) for row in pool}
    draws = 150
    estimates = np.zeros(draws)
    sizes = []
    for draw in range(draws):
        found = queue(pool, pairs=pairs, seed=draw)
        assert found.height == pairs
        worth = np.array([value[item] for item in found["item_id"]])
        estimates[draw] = (worth / found["inclusion_probability"].to_numpy()).sum()
        sizes.append(found.group_by("stage").agg(size=(1 / pl.col("inclusion_probability")).sum()))
    error = max(estimates.std() / np.sqrt(draws), 1e-9)
    assert abs(estimates.mean() - sum(value.values())) < 4.5 * error
    size = dict(pl.concat(sizes).group_by("stage").agg(pl.col("size").sum() / draws).iter_rows())
    expected = pl.DataFrame(pool)["stage"].value_counts()
    for stage, count in expected.iter_rows():
        assert size[stage] == pytest.approx(count, rel=0.5)


def test_every_stratum_has_the_probability_that_it_says() -> None:
    """More strata than places: counted over many draws."""
    pool = [candidate(f"i{number}", stage=stage) for number in range(3) for stage in ("retrieved", "trimmed", "ranked")]
    pool = [row | {"item_id": f"{row['stage']}-{row['item_id']}"} for row in pool]
    draws = [queue(pool, pairs=2, seed=seed) for seed in range(300)]
    assert {found.height for found in draws} == {2}
    assert {len(set(found.select(STRATA).rows())) for found in draws} == {2}
    together = pl.concat(draws)
    assert together["inclusion_probability"].unique().to_list() == [pytest.approx(0.5 * 2 / 3 / 3)]
    seen = together["item_id"].value_counts()["count"] / len(draws)
    assert seen.len() == 9
    assert seen.is_between(0.13, 0.32).all()  # 2/9

"""The experiment on the market: what is no difference is level, and a better generator is seen to be better."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.evaluation.market_outcomes import FIRST, SECOND, Measured, market_rows, ratios, roas_lift
from ml.evaluation.model_names import WITHOUT_A_MODEL, ListArm
from tests.assets.world import WORLD
from warehouse.landing import Landing
from warehouse.world import Arm, run_arms, write_world
from warehouse.world.market.requests import HOME_FEED
from warehouse.world.simulation import build_world, live

SETTINGS = WORLD.model_copy(update={"history_days": 30, "impression_days": 4, "request_share": 0.25})
SINCE, UNTIL = SETTINGS.day_date(27), SETTINGS.day_date(29)
NOTHING = pl.DataFrame(schema={"request_id": pl.String, "item_id": pl.String, "rank": pl.Int64})
REPEATS = 100


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(Landing(root), SETTINGS, 0)
    return root


@pytest.fixture(scope="module")
def proposals() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Twenty items of the subject's own leaf, and twenty random ones, for each request with a subject or a query."""
    world, random = build_world(SETTINGS, 29), np.random.default_rng(0)
    leaf, ids = world.catalogue.items.leaf, world.catalogue.items.ids
    near, far = [], []
    for lived in live(world, 29):
        if lived.number < 27 or lived.onsite is None:
            continue
        requests = lived.onsite.requests
        for name, surface, own in zip(requests.ids, requests.surface, requests.leaf, strict=True):
            if surface == HOME_FEED:
                continue
            beside = random.permutation(np.flatnonzero(leaf == own))[:20]
            anywhere = random.choice(len(leaf), 20, replace=False)
            near += [(name, ids[int(item)], rank) for rank, item in enumerate(beside, 1)]
            far += [(name, ids[int(item)], rank) for rank, item in enumerate(anywhere, 1)]
    frames = [pl.DataFrame(rows, schema=NOTHING.schema, orient="row") for rows in (near, far)]
    return frames[0], frames[1]


def sums(outcomes: pl.DataFrame, arm: str) -> pl.DataFrame:
    return outcomes.filter(arm=arm).select(pl.col("delivered", "price_paid", "value").sum())


def test_a_generator_that_fits_survives_more_often_and_an_arm_without_candidates_is_the_log(
    root: Path, proposals: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    near, far = proposals
    arms = [Arm("none", NOTHING), Arm(FIRST, near), Arm(SECOND, far)]
    outcomes = run_arms(root, arms, since=SINCE, until=UNTIL, quota=10)
    logged = pl.read_parquet(root / "impressions" / "history" / "*.parquet").filter(
        pl.col("request_id").is_in(outcomes["request_id"].unique().implode()), pl.col("price_paid").is_not_null()
    )
    none = sums(outcomes, "none")
    assert none["delivered"].item() == len(logged)
    assert none["price_paid"].item() == pytest.approx(logged["price_paid"].sum())

    own = outcomes.filter(pl.col("source") == pl.col("arm"))
    assert own.group_by("arm", "request_id").agg(pl.col("retrieved").sum())["retrieved"].max() <= 10
    rows = {(row.model, row.metric, row.group): row for row in market_rows(outcomes, samples=100, seed=0)}
    survival = rows[FIRST, "survival_ratio", "search"]
    assert survival.low is not None
    assert survival.low > 2
    relevance = rows[FIRST, "relevance_ratio", "search"]
    assert relevance.low is not None
    assert relevance.low > 2
    assert rows["none", "delivered", "search"].value == 0
    assert {row.group for row in rows.values()} == {"related_pins", "search", "top", "other"}
    assert rows["none", "survival_rate", "search"].value is None
    shares = [rows[arm, "share_of_impressions", "search"].value for arm in ("none", FIRST, SECOND)]
    assert shares[0] == 0
    assert shares[1] is not None
    assert shares[1] > 2 * (shares[2] or 0)
    by_hand = outcomes.filter(arm=FIRST, surface="search")
    assert rows[FIRST, "roas", "search"].value == pytest.approx(by_hand["value"].sum() / by_hand["price_paid"].sum())


def test_an_arm_is_measured_against_the_arms_that_it_adds_to(
    root: Path, proposals: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    """The near items beside the first arm's far ones; by hand, over all requests of a surface with any candidate."""
    near, far = proposals
    arms = [Arm(WITHOUT_A_MODEL, NOTHING), Arm(FIRST, far), Arm(ListArm.with_contextual, near)]
    outcomes = run_arms(root, arms, since=SINCE, until=UNTIL, quota=10)
    rows = {(row.model, row.metric): row for row in market_rows(outcomes, samples=20, seed=0) if row.group == "search"}
    asked = outcomes.filter(pl.col("source") == pl.col("arm"), surface="search")["request_id"].unique()
    of_search = outcomes.filter(pl.col("request_id").is_in(asked.implode()))

    def roas(arm: str) -> float:
        sums = of_search.filter(arm=arm).select(pl.col("value", "price_paid").sum())
        return float(sums["value"].item() / sums["price_paid"].item())

    both = ListArm.with_contextual.value
    for arm, other in ((both, FIRST), (both, WITHOUT_A_MODEL), (FIRST, WITHOUT_A_MODEL)):
        lift = rows[arm, f"roas_lift.over.{other}"]
        assert lift.value == pytest.approx(roas(arm) / roas(other) - 1)
        assert lift.low is not None
        assert lift.high is not None
        assert lift.low < (lift.value or 0.0) < lift.high
    delivered = [of_search.filter(arm=arm, source=arm)["delivered"].sum() for arm in (both, FIRST)]
    assert rows[both, f"delivered_ratio.over.{FIRST}"].value == pytest.approx(delivered[0] / delivered[1])
    assert (FIRST, f"delivered_ratio.over.{WITHOUT_A_MODEL}") not in rows
    assert (WITHOUT_A_MODEL, f"roas_lift.over.{WITHOUT_A_MODEL}") not in rows


def test_an_arm_run_twice_is_identical(root: Path, proposals: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    arms = [Arm("once", proposals[0])], [Arm("other", NOTHING), Arm("once", proposals[0])]
    one, two = (run_arms(root, each, since=SINCE, until=UNTIL, quota=10).filter(arm="once") for each in arms)
    assert one.equals(two)


def test_a_null_arm_is_level_in_93_of_100_repeats(root: Path, proposals: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    """The same list under another seed of the luck: the interval of each ratio holds no difference."""
    arms = [Arm(f"null {number}", proposals[0], luck=1 + number) for number in range(REPEATS + 1)]
    outcomes = run_arms(root, arms, since=SINCE, until=UNTIL, quota=10)
    users = outcomes["user_id"].unique().sort()
    measured = [Measured.of(arm.name, outcomes.filter(arm=arm.name), users) for arm in arms]
    random = np.random.default_rng(1)
    weights = [np.bincount(random.integers(0, len(users), len(users)), minlength=len(users)) for _ in range(100)]
    figures = [[each.figures(weight.astype(float)) for weight in weights] for each in measured]
    level = dict.fromkeys(("survival_ratio", "delivered_ratio", "roas_lift"), 0)
    for one, other in pairwise(range(len(arms))):
        drawn = [ratios(*pair) for pair in zip(figures[one], figures[other], strict=True)]
        for metric in ("survival_ratio", "delivered_ratio"):
            low, high = np.quantile([each[metric] for each in drawn], [0.025, 0.975])
            level[metric] += int(low <= 1 <= high)
        lift = roas_lift(measured[one], measured[other])
        assert 0 < lift.high - lift.low < 1
        level["roas_lift"] += int(lift.low <= 0 <= lift.high)
    assert min(level.values()) >= 93, level


def test_a_window_before_the_launch_of_ads_has_no_row(root: Path) -> None:
    outcomes = run_arms(root, [Arm("none", NOTHING)], since=SETTINGS.day_date(3), until=SETTINGS.day_date(5), quota=10)
    assert not len(outcomes)
    assert market_rows(outcomes, samples=2, seed=0) == []


@pytest.mark.parametrize("names", [("one", "one"), ("popular", "one")])
def test_two_sources_of_one_name_are_refused(root: Path, names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=f"'{names[0]}' names two sources"):
        run_arms(root, [Arm(name, NOTHING) for name in names], since=SINCE, until=UNTIL, quota=10)


def test_candidates_of_a_request_outside_the_window_are_refused(root: Path) -> None:
    stray = pl.DataFrame({"request_id": ["r00001-000000"], "item_id": ["i000001"], "rank": [1]})
    with pytest.raises(ValueError, match="r00001-000000"):
        run_arms(root, [Arm("stray", stray)], since=SINCE, until=UNTIL, quota=10)

"""The truth of the default world: shape of its log, order that pooling cannot see, an oracle that is calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from warehouse.landing import Landing
from warehouse.world import WorldSettings, write_world
from warehouse.world.market.downstream import IMPRESSED, RANKED
from warehouse.world.market.requests import RELATED_PINS
from warehouse.world.market.truth import interest
from warehouse.world.oracle import Knowledge, know, positive_probabilities
from warehouse.world.simulation import build_world, live

pytestmark = pytest.mark.slow
SETTINGS = WorldSettings()
WINDOW_DAYS = 28
AS_OF = SETTINGS.first_daily_day - timedelta(WINDOW_DAYS + 5)  # so that late events of the window are in the history
CUT_OFF = SETTINGS.midnight(SETTINGS.day_number(AS_OF) + 1)
SAMPLED_USERS = 900


@dataclass(frozen=True)
class Log:
    """The default history, cut at a day inside it."""

    events: pl.DataFrame  # distinct, with the item's leaf
    impressions: pl.DataFrame
    past: pl.DataFrame
    positives: pl.DataFrame  # user_id, item_id, first_time, leaf: new items added to the cart within the window


@dataclass(frozen=True)
class Oracle:
    """Probabilities of a sample of users, 0 for what they know, and what came true."""

    knowledge: Knowledge
    probability: NDArray[np.float64]
    positive: NDArray[np.bool_]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    landing = Landing(tmp_path_factory.mktemp("world"))
    write_world(landing, SETTINGS, days=0)
    leaf = pl.read_parquet(landing.root / "items/history/part-0.parquet").select("item_id", leaf="category")
    impressions = pl.read_parquet(landing.root / "impressions/history/part-0.parquet")
    events = pl.read_parquet(landing.root / "events/history/part-0.parquet").unique("event_id")
    events = events.join(leaf, on="item_id", how="left").sort("user_id", "event_time", "event_id")
    past = events.filter(pl.col("event_time") < CUT_OFF)
    window = events.filter(
        (pl.col("event_time") >= CUT_OFF) & (pl.col("event_time") < CUT_OFF + timedelta(WINDOW_DAYS))
    )
    positives = (
        window.filter(pl.col("event_name") == "add_to_cart")
        .group_by("user_id", "item_id", "leaf")
        .agg(first_time=pl.col("event_time").min())
        .join(past, on=["user_id", "item_id"], how="anti")
        .join(past, on="user_id", how="semi")
        .sort("user_id", "first_time", "item_id")
    )
    return Log(events, impressions.join(leaf, on="item_id"), past, positives)


@pytest.fixture(scope="module")
def oracle(log: Log) -> Oracle:
    users = log.past["user_id"].unique().sort().sample(SAMPLED_USERS, seed=3, shuffle=True).to_list()
    knowledge = know(SETTINGS, AS_OF, users, WINDOW_DAYS)
    blocks = np.array_split(np.arange(len(users)), 2)
    probability = np.concatenate([positive_probabilities(knowledge, rows, WINDOW_DAYS, futures=10) for rows in blocks])
    probability[knowledge.seen] = 0.0
    row = {user: number for number, user in enumerate(users)}
    column = {item: number for number, item in enumerate(knowledge.world.catalogue.items.ids)}
    positive = np.zeros(probability.shape, dtype=bool)
    for user, item in log.positives.select("user_id", "item_id").iter_rows():
        if user in row:
            positive[row[user], column[item]] = True
    return Oracle(knowledge, probability, positive)


def recall(score: NDArray[np.float64], positive: NDArray[np.bool_], k: int) -> float:
    """Hits over positives."""
    best = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(positive, best, axis=1).sum() / positive.sum())


def deviation(expected: NDArray[np.float64], real: NDArray[np.int64]) -> float:
    """Standard errors between two totals over users, by the spread of the users' differences."""
    difference = expected - real
    return float(abs(difference.sum()) / np.sqrt((difference**2).sum()))


def test_conversions_are_sparse_with_a_heavy_tail(log: Log) -> None:
    lengths = log.events.group_by("user_id").len()["len"].to_numpy()
    assert 200_000 < log.events.height < 400_000
    assert 3 <= np.median(lengths) < 10
    assert 30 <= np.minimum(lengths, 100).mean() <= 40
    assert 600 < lengths.max() < 1500
    share = log.events.filter(pl.col("event_name").is_in(["add_to_cart", "checkout", "signup"])).height
    assert 0.05 < share / log.events.height < 0.25


def test_item_popularity_is_a_power_law_that_drifts(log: Log) -> None:
    visits = log.events.drop_nulls("item_id")
    counts = visits.group_by("item_id").len()["len"].sort(descending=True).to_numpy()
    assert counts[: len(counts) // 10].sum() > 0.35 * counts.sum()
    body = slice(10, len(counts) // 4)
    rank, size = np.log(np.arange(1, len(counts) + 1)[body]), np.log(counts[body])
    slope, _ = np.polyfit(rank, size, 1)
    assert -1.3 < slope < -0.4
    assert np.corrcoef(rank, size)[0, 1] < -0.97

    def top(first_day: int) -> set[str]:
        start = SETTINGS.midnight(first_day)
        month = visits.filter(pl.col("event_time").is_between(start, start + timedelta(30)))
        return set(month.group_by("item_id").len().sort("len", "item_id", descending=True)["item_id"].head(100))

    assert len(top(30) & top(200)) < 75
    assert len(top(30) & top(60)) > len(top(30) & top(200))


def test_the_last_event_tells_the_next_intent_and_shuffling_loses_it(log: Log) -> None:
    leaves = build_world(SETTINGS, 0).catalogue.leaves
    complement = pl.DataFrame({"leaf": leaves.paths, "complement": [leaves.paths[c] for c in leaves.complement]})
    following = log.positives.group_by("user_id", maintain_order=True).agg(next=pl.col("leaf").first())
    history = log.past.drop_nulls("item_id").join(following, on="user_id").join(complement, on="leaf")
    history = history.filter(pl.len().over("user_id") >= 20)
    told = pl.when(pl.col("event_name") == "checkout").then("complement").otherwise("leaf")

    def share(events: pl.DataFrame) -> float:
        last = events.group_by("user_id", maintain_order=True).last()
        return float(np.mean((last.select(told.alias("told"))["told"] == last["next"]).to_numpy()))

    in_order = share(history.sort("user_id", "event_time", "event_id"))
    shuffled = share(history.sort("event_id").sample(fraction=1.0, shuffle=True, seed=0))
    assert in_order > 0.3
    assert in_order > 2 * shuffled

    last = history.sort("user_id", "event_time", "event_id").group_by("user_id").last()
    after = last.group_by(pl.col("event_name") == "checkout").agg((pl.col("complement") == pl.col("next")).mean())
    by_checkout = dict(after.iter_rows())
    assert by_checkout[True] > 0.25
    assert by_checkout[True] > 1.5 * by_checkout[False]


def test_going_round_a_cycle_of_complements_hides_the_position_from_a_bag() -> None:
    leaves = build_world(SETTINGS, 0).catalogue.leaves
    once = leaves.complement
    twice, thrice = once[once], once[once[once]]
    start = np.arange(leaves.count)
    assert (once[thrice] == start).all()
    assert all((step != start).all() for step in (once, twice, thrice))
    assert (once // 12 == start // 12).all()
    assert (once // 3 != start // 3).all()


def test_the_oracle_is_calibrated(oracle: Oracle) -> None:
    expected, real = oracle.probability.sum(axis=1), oracle.positive.sum(axis=1)
    assert real.sum() > 150
    assert deviation(expected, real) < 3
    # The head too. Futures choose a head that they rate too high by luck, so others say what to expect of it.
    best = np.argsort(-oracle.probability, axis=1, kind="stable")[:, :10]
    rows = np.arange(SAMPLED_USERS)
    others = positive_probabilities(oracle.knowledge, rows, WINDOW_DAYS, futures=4, first_future=1000)
    others[oracle.knowledge.seen] = 0.0
    expected_hits = np.take_along_axis(others, best, axis=1).sum(axis=1)
    hits = np.take_along_axis(oracle.positive, best, axis=1).sum(axis=1)
    assert hits.sum() > 30
    assert deviation(expected_hits, hits) < 3


def test_calibration_sees_a_wrong_state(oracle: Oracle) -> None:
    """The probabilities of another user are no good: the check above can fail, and the state carries the knowledge."""
    wrong = np.roll(oracle.probability, 1, axis=0)
    assert recall(wrong, oracle.positive, 100) < 0.5 * recall(oracle.probability, oracle.positive, 100)


def test_the_oracle_beats_popularity_by_a_wide_margin(log: Log, oracle: Oracle) -> None:
    counts = log.past.filter(pl.col("event_name") == "add_to_cart").group_by("item_id").len()
    known = pl.DataFrame({"item_id": oracle.knowledge.world.catalogue.items.ids}).join(
        counts, on="item_id", how="left", maintain_order="left"
    )
    popularity = known["len"].fill_null(0).to_numpy().astype(float)
    score = np.where(oracle.knowledge.seen, -1.0, popularity)
    assert 0.03 < recall(score, oracle.positive, 100) < 0.15
    assert recall(oracle.probability, oracle.positive, 10) > 6 * recall(score, oracle.positive, 10)
    assert 0.45 < recall(oracle.probability, oracle.positive, 100) < 0.9


def test_survivors_depend_on_the_subject_and_on_the_user(log: Log) -> None:
    """Of the candidates that pass the trim, the user decides no less than the subject who is delivered."""
    world = build_world(SETTINGS, SETTINGS.history_days - 1)
    stages = dict(log.impressions.group_by("stage").len().iter_rows())
    assert 500_000 < log.impressions.height < 1_500_000
    assert len(stages) == 7
    assert stages["impressed"] > 5 * stages["clicked"] > 25 * stages["converted"] > 0
    *_, last = live(world, SETTINGS.history_days - 1)
    assert last.onsite is not None
    requests, pairs, outcome = last.onsite.requests, last.onsite.candidates.pairs, last.onsite.outcome
    per_request = np.bincount(pairs.request)
    assert 100 < np.median(per_request) < 300
    passed = np.flatnonzero((outcome.stage >= RANKED) & (requests.surface[pairs.request] == RELATED_PINS))
    delivered = outcome.stage[passed] >= IMPRESSED
    relevant, wanted = outcome.relevance[passed], interest(world, requests, pairs.take(passed))
    by_subject, by_user = (
        (score[delivered].mean() - score[~delivered].mean()) / score.std() for score in (relevant, wanted)
    )
    assert by_subject > 0.3
    assert by_user > 0.5 * by_subject
    assert len(passed) > 8 * delivered.sum()  # far more relevant candidates than slots


def test_subjects_are_only_loosely_tied_to_the_next_conversion(log: Log) -> None:
    subject_leaf = log.events.drop_nulls("item_id").select(subject_item_id="item_id", subject_leaf="leaf").unique()
    requests = (
        log.impressions.drop_nulls("subject_item_id").unique("request_id").join(subject_leaf, on="subject_item_id")
    )
    carts = log.events.filter(pl.col("event_name") == "add_to_cart").select("user_id", "event_time", cart_leaf="leaf")
    following = requests.sort("request_time").join_asof(
        carts.sort("event_time"),
        left_on="request_time",
        right_on="event_time",
        by="user_id",
        strategy="forward",
        check_sortedness=False,
    )
    tied = following.drop_nulls("cart_leaf").select(pl.col("cart_leaf") == pl.col("subject_leaf"))["cart_leaf"].mean()
    assert 0.1 < tied < 0.5

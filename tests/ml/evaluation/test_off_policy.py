"""Off-policy estimates: worked by hand, equal to the plain mean, near the truth as often as they say, and refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from ml.evaluation.funnel_outcomes import Stages
from ml.evaluation.off_policy import (
    Estimates,
    Listed,
    Overlap,
    Refused,
    doubly_robust,
    estimate,
    inverse_propensity,
    mean_by_cell,
    self_normalised,
)
from ml.evaluation.off_policy_outcomes import LOGGED, estimates_by_surface, off_policy_rows
from ml.evaluation.report_rows import ReportRow

STAGES = Stages(["retrieved", "trimmed", "ranked", "auctioned", "impressed", "clicked", "converted"])
NOT = np.nan  # an item that the logging policy did not propose

LOG = pl.DataFrame(
    [
        # request, user, item, furthest stage, propensity, value
        ("r1", "ann", "a", "clicked", 0.5, None),
        ("r1", "ann", "b", "impressed", 0.25, None),
        ("r2", "bob", "a", "retrieved", 0.5, None),
        ("r2", "bob", "c", "converted", 0.2, 30.0),
        ("r3", "bob", "a", "clicked", 0.5, None),
        ("r3", "bob", "c", "clicked", None, None),  # so that nothing of r3 counts
    ],
    schema=["request_id", "user_id", "item_id", "stage", "propensity", "value"],
    orient="row",
).with_columns(surface=pl.lit("search"))
LISTS = pl.DataFrame(
    [("r1", "a"), ("r1", "z"), ("r2", "c"), ("r2", "a"), ("r3", "c"), ("r9", "a")],
    schema=["request_id", "item_id"],
    orient="row",
)


def values(rows: list[ReportRow]) -> dict[tuple[str, str], float | None]:
    return {(row.model, row.metric): row.value for row in rows}


def test_a_log_worked_by_hand() -> None:
    """Two requests list four items, three of which were proposed: weights 2 (a of r1), 5 (c of r2) and 2 (a of r2)."""
    found = values(off_policy_rows(LOG, LISTS, policy="new", stages=STAGES, minimum=1))
    clicks = 2 * 1 + 5 * 1 + 2 * 0
    assert found["new", "clicks.inverse_propensity"] == clicks / 2
    assert found["new", "clicks.self_normalised"] == pytest.approx(clicks / 9 * 4 / 2)
    assert found["new", "delivered.inverse_propensity"] == (2 + 5) / 2
    assert found["new", "conversions.inverse_propensity"] == 5 / 2
    assert found["new", "value.inverse_propensity"] == 5 * 30 / 2
    assert found["new", "effective_sample_size"] == pytest.approx(9**2 / (4 + 25 + 4))
    assert found["new", "effective_users"] == pytest.approx(9**2 / (4 + 49))
    assert found["new", "support"] == 9 / 4
    assert (found["new", "requests"], found["new", "requests_without_propensity"]) == (2, 1)
    assert found["new", "lists_without_request"] == 1
    assert found[LOGGED, "clicks"] == (1 + 0 + 0 + 1) / 2
    assert found[LOGGED, "value"] == 15


def test_a_model_of_the_caller_replaces_the_mean_by_position() -> None:
    """The model expects .5 clicks of each of the four listed items."""
    lists = LISTS.with_columns(expected_clicks=0.5)
    found = values(off_policy_rows(LOG, lists, policy="new", stages=STAGES, minimum=1))
    assert found["new", "clicks.doubly_robust"] == (4 * 0.5 + 2 * 0.5 + 5 * 0.5 - 2 * 0.5) / 2


def test_a_request_without_a_list_has_an_empty_list() -> None:
    found = values(
        off_policy_rows(LOG, LISTS.filter(pl.col("request_id") == "r1"), policy="new", stages=STAGES, minimum=1)
    )
    assert found["new", "clicks.inverse_propensity"] == 2 / 2
    assert found["new", "clicks.self_normalised"] == 1 * 2 / 2  # each item of r1 a click, two of them, in two requests


def test_no_model_learns_from_the_user_that_it_expects_rewards_of() -> None:
    """Each user's rewards are the user's number: a mean that held the own rewards would move with them."""
    users, each = 12, 3
    listed = Listed(np.arange(users), np.repeat(np.arange(users), each), np.full(users * each, 0.5))
    reward = np.repeat(np.arange(users, dtype=float), each)
    cell = np.tile(np.arange(each), users)
    before = mean_by_cell(listed, reward, cell)
    for user in range(users):
        changed = np.where(listed.request == user, 1000.0, reward)
        own = listed.request == user
        assert mean_by_cell(listed, changed, cell)[own].tolist() == before[own].tolist()
        assert (mean_by_cell(listed, changed, cell) != before).any()


def test_means_by_cell_are_weighted_and_a_cell_without_a_match_has_the_mean_of_all() -> None:
    listed = Listed(np.array([0]), np.zeros(4, np.int64), np.array([0.5, 0.25, 1.0, NOT]))
    found = mean_by_cell(listed, np.array([1.0, 0.0, 1.0, 7.0]), np.array([0, 0, 1, 2]), folds=1)
    assert found.tolist() == pytest.approx([2 / 6, 2 / 6, 1.0, 3 / 7])


def test_of_the_policy_that_ran_all_three_estimates_are_the_plain_mean() -> None:
    """Every listed item was proposed with probability 1."""
    random = np.random.default_rng(0)
    request = np.sort(random.integers(0, 300, 2000))
    listed = Listed(np.arange(300) % 120, request, np.ones(2000))
    reward = random.random(2000)
    mean = np.bincount(request, reward, 300).mean()
    assert Overlap.of(listed).effective_sample_size == 2000
    assert inverse_propensity(listed, reward).value == pytest.approx(mean)
    assert self_normalised(listed, reward).value == pytest.approx(mean)
    assert doubly_robust(listed, reward, random.random(2000)).value == pytest.approx(mean)


def test_a_model_that_knows_every_reward_leaves_no_noise_of_the_proposals() -> None:
    random = np.random.default_rng(0)
    propensity = np.where(random.random(3000) < 0.2, 0.2, NOT)
    listed = Listed(np.arange(300), np.repeat(np.arange(300), 10), propensity)
    reward = np.tile(random.random(10), 300)
    found = doubly_robust(listed, reward, reward)
    assert found.value == pytest.approx(reward[:10].sum())
    assert found.standard_error == pytest.approx(0, abs=1e-12)
    assert inverse_propensity(listed, reward).standard_error > 0.1


@dataclass(frozen=True)
class Market:
    """Kinds of requests, items, and lists of the policy to estimate: ``truth`` follows from them.

    Attributes:
        propensity, click: [kinds, items] of an item in a request of the kind.
        lists: [kinds, listed items], of which a list has the first ``lengths`` [kinds].
    """

    propensity: NDArray[np.float64]
    click: NDArray[np.float64]
    lists: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def draw(cls, random: np.random.Generator) -> Market:
        click = random.beta(1, 4, (4, 60))
        noisy = click + random.normal(0, 0.1, click.shape)
        return cls(
            random.uniform(0.1, 0.6, click.shape), click, np.argsort(-noisy, axis=1)[:, :16], np.array([4, 8, 12, 16])
        )

    @property
    def truth(self) -> float:
        """Expected clicks a request; every kind is as frequent, and users' activity says nothing of their clicks."""
        listed = np.arange(self.lists.shape[1]) < self.lengths[:, None]
        return float((np.take_along_axis(self.click, self.lists, 1) * listed).sum(axis=1).mean())

    def log(self, random: np.random.Generator, users: int) -> tuple[Listed, NDArray[np.float64], NDArray[np.int64]]:
        """What a log says of the lists: items beside propensities, clicks, positions.

        A user's requests are of one kind, and some users click up to twice as much as others.
        """
        user = np.repeat(np.arange(users), random.integers(1, 6, users))
        kind, keenness = random.integers(0, 4, users)[user], random.uniform(0.5, 1.5, users)[user]
        item = self.lists[kind]
        propensity = np.take_along_axis(self.propensity[kind], item, 1)
        proposed = random.random(propensity.shape) < propensity
        clicked = random.random(propensity.shape) < np.take_along_axis(self.click[kind], item, 1) * keenness[:, None]
        request, position = np.nonzero(np.arange(item.shape[1]) < self.lengths[kind][:, None])
        listed = Listed(user, request, np.where(proposed, propensity, NOT)[request, position])
        return listed, np.where(proposed, clicked, 0.0)[request, position], position // 3


def test_the_truth_is_within_two_standard_errors_in_93_of_100_logs() -> None:
    random = np.random.default_rng(0)
    near = dict.fromkeys(Estimates.__annotations__, 0)
    for _ in range(100):
        market = Market.draw(random)
        listed, reward, bucket = market.log(random, users=300)
        found = estimate(listed, reward, mean_by_cell(listed, reward, bucket))
        assert isinstance(found, Estimates)
        for name in near:
            of = getattr(found, name)
            near[name] += abs(of.value - market.truth) <= 2 * of.standard_error
    assert min(near.values()) >= 93, near


def test_estimates_that_share_out_the_noise_are_surer_than_the_plain_one() -> None:
    random = np.random.default_rng(0)
    market = Market.draw(random)
    listed, reward, bucket = market.log(random, users=2000)
    found = estimate(listed, reward, mean_by_cell(listed, reward, bucket))
    assert isinstance(found, Estimates)
    assert found.doubly_robust.standard_error < found.inverse_propensity.standard_error
    assert found.self_normalised.standard_error < found.inverse_propensity.standard_error


def test_standard_errors_are_those_of_a_bootstrap_over_users() -> None:
    random = np.random.default_rng(0)
    listed, reward, bucket = Market.draw(random).log(random, users=200)
    expected = mean_by_cell(listed, reward, bucket)
    found = estimate(listed, reward, expected)
    assert isinstance(found, Estimates)
    rows_of_user = [np.flatnonzero(listed.user[listed.request] == user) for user in range(200)]
    drawn: dict[str, list[float]] = {name: [] for name in Estimates.__annotations__}
    for _ in range(200):
        users = random.integers(0, 200, 200)
        rows = np.concatenate([rows_of_user[user] for user in users])
        place = np.repeat(np.arange(200), [len(rows_of_user[user]) for user in users])
        _, request = np.unique(np.stack([place, listed.request[rows]]), axis=1, return_inverse=True)
        of_request = np.zeros(request.max() + 1, np.int64)
        of_request[request] = place
        again = estimate(Listed(of_request, request, listed.propensity[rows]), reward[rows], expected[rows], minimum=0)
        assert isinstance(again, Estimates)
        for name, values_of in drawn.items():
            values_of.append(getattr(again, name).value)
    for name, values_of in drawn.items():
        assert getattr(found, name).standard_error == pytest.approx(np.std(values_of), rel=0.15), name


def test_an_interval_is_95_percent_around_the_estimate() -> None:
    random = np.random.default_rng(0)
    listed, reward, _ = Market.draw(random).log(random, users=200)
    found = inverse_propensity(listed, reward)
    interval = found.interval
    assert interval.estimate == found.value
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * found.standard_error, rel=1e-4)


def test_too_few_matches_are_refused_with_the_number_the_bound_and_what_to_do() -> None:
    found = estimates_by_surface(LOG, LISTS, stages=STAGES)["search"]["clicks"]
    assert isinstance(found, Refused)
    assert found.overlap.effective_sample_size == pytest.approx(81 / 33)
    assert "the effective sample size is 2.5 items of 1.5 users, and an estimate needs 100 of each" in found.reason
    assert "log more requests" in found.reason
    rows = values(off_policy_rows(LOG, LISTS, policy="new", stages=STAGES))
    assert rows["new", "clicks.doubly_robust"] is None
    assert rows["new", "effective_sample_size"] == pytest.approx(81 / 33)
    assert rows[LOGGED, "clicks"] == 1


def test_one_heavy_weight_or_one_user_cannot_stand_for_all() -> None:
    propensity = np.ones(1000)
    many = Listed(np.arange(1000), np.arange(1000), propensity)
    assert isinstance(estimate(many, np.ones(1000), np.ones(1000)), Estimates)
    heavy = Listed(np.arange(1000), np.arange(1000), np.where(np.arange(1000) == 7, 1e-5, propensity))
    assert isinstance(estimate(heavy, np.ones(1000), np.ones(1000)), Refused)
    one = Listed(np.zeros(1000, np.int64), np.arange(1000), propensity)
    assert isinstance(estimate(one, np.ones(1000), np.ones(1000)), Refused)


def test_lists_without_a_match_or_without_a_request_are_refused() -> None:
    for listed in (
        Listed(np.array([0]), np.array([0]), np.array([NOT])),
        Listed(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)),
    ):
        nothing = np.zeros(len(listed.request))
        cells = np.zeros(len(listed.request), np.int64)
        assert isinstance(estimate(listed, nothing, mean_by_cell(listed, nothing, cells)), Refused)
    unlogged = LOG.with_columns(propensity=pl.lit(None, pl.Float64))
    found = values(off_policy_rows(unlogged, LISTS, policy="new", stages=STAGES))
    assert (found["new", "requests"], found["new", "requests_without_propensity"]) == (0, 3)
    assert found["new", "clicks.inverse_propensity"] is None
    assert found[LOGGED, "clicks"] is None


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5])
def test_a_propensity_is_a_probability_above_zero(propensity: float) -> None:
    wrong = LOG.with_columns(propensity=pl.lit(propensity))
    with pytest.raises(ValueError, match=r"3 propensities are not above 0 and at most 1"):
        off_policy_rows(wrong.head(4), LISTS, policy="new", stages=STAGES)


def test_a_list_has_an_item_once() -> None:
    with pytest.raises(ValueError, match="the list of request r1 has item a twice"):
        off_policy_rows(LOG, pl.concat([LISTS, LISTS.head(1)]), policy="new", stages=STAGES)


def test_surfaces_are_estimated_apart() -> None:
    other = LOG.with_columns(surface=pl.lit("home_feed"), request_id="h" + pl.col("request_id"))
    lists = pl.concat([LISTS, LISTS.with_columns(request_id="h" + pl.col("request_id")).head(2)])
    rows = off_policy_rows(pl.concat([LOG, other]), lists, policy="new", stages=STAGES, minimum=1)
    found = {(row.group, row.metric): row.value for row in rows if row.model == "new"}
    assert found["search", "clicks.inverse_propensity"] == 3.5
    assert found["home_feed", "clicks.inverse_propensity"] == 1.0

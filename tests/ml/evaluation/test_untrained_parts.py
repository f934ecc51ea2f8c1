"""The parts without training: a score worked by hand, the best of the draws, and nothing of the measured window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml.evaluation.contextual_requests import context_evaluation
from ml.evaluation.intervals import confidence_interval
from ml.evaluation.model_lists import baseline_lists
from ml.evaluation.model_names import ModelName
from ml.evaluation.queries import EvaluationSet, newest_window
from ml.evaluation.untrained_parts import DRAWS, PartWeights, UntrainedParts, choose_weights, weighed_lists
from ml.examples.context import subject_context
from ml.examples.named_interests import named_interests
from ml.examples.period import Prepared, TrainingPeriod, prepare
from ml.features.event_log import to_seconds
from ml.features.interest_profiles import InterestProfiles
from settings import Settings

SCALE = 1e6  # far above every other part


@pytest.fixture
def asked(period: TrainingPeriod, prepared: Prepared, settings: Settings) -> EvaluationSet:
    return newest_window(period, prepared.dataset, settings)


def recall(asked: EvaluationSet, weights: PartWeights, settings: Settings, k: int = 10) -> float:
    lists = weighed_lists(weights, asked, settings, 100)
    return confidence_interval(lists, asked.queries.positives, k, samples=0).estimate


def test_recent_events_alone_are_recent_popularity(asked: EvaluationSet, settings: Settings) -> None:
    alone = PartWeights(0.0, 0.0, 0.0, 0.0, recent=1.0, towards_subject=0.0, newest_events=100, text=0.0)
    found = weighed_lists(alone, asked, settings, 20)
    popular = baseline_lists(ModelName.recent_popularity, asked, 20)
    assert np.array_equal(found.items, popular.items)


def test_the_advertiser_alone_finds_the_advertisers_of_the_newest_items(
    asked: EvaluationSet, settings: Settings
) -> None:
    """An item's advertiser is a direction of its own, so the newest event's advertiser comes first."""
    alone = PartWeights(0.0, 0.0, 0.0, SCALE, recent=0.0, towards_subject=0.0, newest_events=1, text=0.0)
    found = weighed_lists(alone, asked, settings, 5)
    queries, log = asked.queries, asked.dataset.log
    newest = log.item[queries.history_end - 1]
    advertiser = asked.dataset.features.advertiser
    known = newest >= 0
    first = queries.candidates[found.items[known, 0]]
    assert np.array_equal(advertiser[first], advertiser[newest[known]])


def test_towards_the_subject_in_full_the_history_counts_for_nothing(asked: EvaluationSet, settings: Settings) -> None:
    features, queries = asked.dataset.features, asked.queries
    subject = np.arange(len(queries)) % len(features)
    beside = replace(asked, queries=replace(queries, context=subject_context(subject, features), exclude=None))
    nobody = replace(beside, queries=replace(beside.queries, user=np.full(len(queries), -1)))
    weights = PartWeights(1.0, 1.0, 1.0, 1.0, recent=0.1, towards_subject=1.0, newest_events=10, text=0.0)
    known = np.flatnonzero(features.content[subject].any(axis=1) & features.category[subject].any(axis=1))
    found, expected = (weighed_lists(weights, each, settings, 10).items[known] for each in (beside, nobody))
    assert len(known)
    assert np.array_equal(found, expected)
    first = queries.candidates[weighed_lists(replace(weights, recent=0.0), beside, settings, 1).items[known, 0]]
    assert np.array_equal(features.advertiser[first], features.advertiser[subject[known]])


def test_a_search_has_the_interest_in_the_place_of_the_subject(asked: EvaluationSet, settings: Settings) -> None:
    """An interest that one item alone has looks like the item, so both find the same."""
    features, count = asked.dataset.features, len(asked.queries)
    alone = pl.DataFrame({"category_path": [f"P{row}" for row in range(len(features))]}).with_columns(
        stated_interests=pl.lit(None, pl.List(pl.Struct({"interest": pl.String, "confidence": pl.Float64})))
    )
    profiles = InterestProfiles.of(alone, features, settings.features.category_buckets)
    item = np.arange(count) % len(features)
    context = named_interests([{f"P{row}": 1.0} for row in item], profiles, settings.features.category_buckets)
    weights = PartWeights(1.0, 1.0, 0.0, 0.0, recent=0.1, towards_subject=1.0, newest_events=10, text=0.0)
    by_name, beside = (
        weighed_lists(weights, replace(asked, queries=replace(asked.queries, context=each, exclude=None)), settings, 10)
        for each in (context, subject_context(item, features))
    )
    np.testing.assert_allclose(by_name.scores, beside.scores, atol=1e-5)


def test_each_kind_of_query_has_its_own_weights(asked: EvaluationSet, settings: Settings) -> None:
    """A third of the queries stand beside an item, a third name an interest, and the others have no context."""
    features, count = asked.dataset.features, len(asked.queries)
    kind = np.arange(count) % 3
    context = subject_context(np.where(kind == 0, 5, -1), features)
    context.interests[kind == 1], context.confidence[kind == 1] = 7, 1.0
    mixed = replace(asked, queries=replace(asked.queries, context=context))
    random = np.random.default_rng(0)
    draws = [PartWeights.draw(random) for _ in range(3)]
    lists = UntrainedParts(without_subject=draws[2], with_subject=draws[0], with_interests=draws[1]).lists(
        mixed, settings, 10
    )
    for each, weights in enumerate(draws):
        expected = weighed_lists(weights, mixed, settings, 10)
        assert np.array_equal(lists.items[kind == each], expected.items[kind == each])
        assert np.array_equal(lists.scores[kind == each], expected.scores[kind == each])


def test_the_chosen_weights_are_the_best_of_the_draws(period: TrainingPeriod, settings: Settings) -> None:
    chosen = choose_weights(period, None, settings)
    earlier = prepare(period.until(period.end - period.window), settings)
    slice_ = newest_window(period, earlier.dataset, settings)
    random = np.random.default_rng(settings.training.seed)
    draws = [PartWeights.draw(random) for _ in range(DRAWS)]
    worth = {weights: recall(slice_, weights, settings) * recall(slice_, weights, settings, 100) for weights in draws}
    assert worth[chosen.without_subject] == max(worth.values())
    assert len(set(worth.values())) > 5  # there was something to choose


def test_nothing_after_the_period_decides(period: TrainingPeriod, settings: Settings) -> None:
    """The window that a report measures lies after the period that the weights are chosen on."""
    until = period.until(period.end - period.window)
    later = pl.Series(to_seconds(period.events["event_time"]) >= until.end)
    other = period.events.with_columns(item_id=pl.when(later).then(pl.col("item_id").reverse()).otherwise("item_id"))
    changed = replace(period, events=other).until(period.end - period.window)
    impressions = impressions_of(period)
    assert choose_weights(until, impressions, settings) == choose_weights(changed, impressions, settings)
    before = impressions.filter(pl.Series(to_seconds(impressions["request_time"])) < until.end)
    assert choose_weights(until, impressions, settings) == choose_weights(until, before, settings)


def test_logged_requests_choose_the_weights_beside_a_subject(period: TrainingPeriod, settings: Settings) -> None:
    impressions = impressions_of(period)
    chosen, without = choose_weights(period, impressions, settings), choose_weights(period, None, settings)
    assert chosen.without_subject == without.without_subject
    slice_ = newest_window(period, prepare(period.until(period.end - period.window), settings).dataset, settings)
    asked = context_evaluation(
        slice_,
        period,
        impressions,
        features=settings.features,
        maximum=settings.training.validation_users,
        seed=settings.training.seed,
    )
    assert asked
    assert asked.source == "logged impressions"
    random = np.random.default_rng(settings.training.seed)
    draws = [PartWeights.draw(random) for _ in range(DRAWS)]
    worth = {
        weights: recall(asked.asked, weights, settings) * recall(asked.asked, weights, settings, 100)
        for weights in draws
    }
    assert worth[chosen.with_subject] == max(worth.values())


def test_embeddings_that_arrive_in_the_measured_window_break_nothing(
    period: TrainingPeriod, prepared: Prepared, settings: Settings
) -> None:
    """The weights are chosen on a catalogue without embeddings, and answer for one with them."""
    chosen = choose_weights(period, None, settings)
    given = period.items.with_columns(embedding=pl.lit([0.6, 0.8], pl.List(pl.Float32)))
    later = prepare(replace(period, items=given), settings)
    assert later.dataset.basis.given_width > 0 == prepared.dataset.basis.given_width
    asked = newest_window(period, later.dataset, settings)
    assert chosen.lists(asked, settings, 10).items.shape == (len(asked.queries), 10)


def impressions_of(period: TrainingPeriod) -> pl.DataFrame:
    """Requests beside an item of every event's user, each of which shows the event's item."""
    events = period.events.filter(pl.col("item_id").is_not_null()).head(4_000)
    return events.select(
        request_id=pl.format("r{}", pl.int_range(pl.len())),
        user_id="user_id",
        request_time="event_time",
        surface=pl.lit("related_pins"),
        subject_item_id=pl.col("item_id").reverse(),
        query=pl.lit(None, pl.String),
        item_id="item_id",
        stage=pl.lit("impressed"),
    )

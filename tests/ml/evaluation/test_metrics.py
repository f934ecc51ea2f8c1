"""Metrics by hand-worked examples and by properties that hold for any lists."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import polars as pl
import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from ml.evaluation.intervals import confidence_interval, paired_difference
from ml.evaluation.metrics import (
    evaluate,
    mlflow_metrics,
    recall_by_positive_segment,
    recall_by_segment,
    share_for_90_percent,
    usable_ks,
)
from ml.retrieval.lists import Positives, RankedLists, search


def random_lists(generator: np.random.Generator, queries: int, items: int, depth: int = 100) -> RankedLists:
    return RankedLists.from_rows([generator.permutation(items)[:depth].tolist() for _ in range(queries)], depth)


def test_a_worked_example() -> None:
    """Eight items; query 0 wants 2 and 5 and finds 2 second; query 1 wants 7, which is not in the catalogue, and 0."""
    lists = RankedLists.from_rows([[1, 2, 3], [0, 4, 6], [0, 1, 2]])
    positives = Positives.from_pairs([0, 0, 1, 1], [2, 5, -1, 0], queries=3)
    advertisers = np.array([0, 1, 1, 2, -1, 2, 1, -1])
    popularity = np.array([4, 2, 1, 1, 0, 0, 0, 0])  # with one added: 5 3 2 2 1 1 1 1, 16 in all
    categories = np.array([5, 5, 6, 6, 6, 6, 6, -1])
    found = evaluate(
        lists,
        positives,
        8,
        advertisers=advertisers,
        categories=categories,
        ks=(1, 2, 3),
        popularity=popularity,
    )

    assert (found.queries, found.positives) == (2, 4)  # the third query has no positive and takes part in nothing
    assert found.recall == {1: 1 / 4, 2: 2 / 4, 3: 2 / 4}
    assert found.macro_recall == {1: 1 / 4, 2: 1 / 2, 3: 1 / 2}
    assert found.hit_rate == {1: 1 / 2, 2: 1, 3: 1}
    ideal = 1 + 1 / math.log2(3)
    assert found.ndcg_at_10 == pytest.approx((1 / math.log2(3) / ideal + 1 / ideal) / 2)
    # Positives of a known advertiser: 2 (advertiser 1, shown first by item 1), 5 (advertiser 2, third), 0 (first).
    assert found.advertiser_hit == {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3), 3: 1}
    # Positives of a known category: 2 and 5 (category 6, shown second by item 2), 0 (first).
    assert found.category_hit == {1: pytest.approx(1 / 3), 2: 1, 3: 1}
    assert found.coverage_at_10 == 6 / 8
    assert found.diversity90 == 6 / 8  # six items, one slot each; 90 % of six slots is 5.4
    # Slots by advertiser: 1 has three (1, 2, 6), 0 and 2 one each, item 4 nobody's. 4.5 of 5 needs all three.
    assert found.advertiser_diversity90 == 1
    bits = [math.log2(16 / part) for part in (3, 2, 2, 5, 1, 1)]
    assert found.novelty == pytest.approx(sum(bits) / 6)


def test_figures_have_one_name_and_absent_ones_are_left_out() -> None:
    figures = evaluate(RankedLists.from_rows([[0]]), Positives.from_pairs([0], [0], 1), 4, ks=(10,)).figures()
    assert figures["recall@10"] == 1
    assert figures["diversity90"] == 1 / 4
    assert not {"novelty", "advertiser_diversity90", "advertiser_hit@10"} & set(figures)


def test_mlflow_accepts_its_names_of_all_figures() -> None:
    """And would not accept the names of the tables."""
    found = evaluate(
        RankedLists.from_rows([[0]]),
        Positives.from_pairs([0], [0], 1),
        4,
        advertisers=np.zeros(4, np.int64),
        categories=np.zeros(4, np.int64),
        ks=(10,),
        popularity=np.ones(4),
    )
    assert len(found.figures()) == len(fields(found))
    for name in mlflow_metrics(found.figures()):
        _validate_metric_name(name)
    with pytest.raises(MlflowException):
        _validate_metric_name("recall@10")


def test_diversity_takes_the_most_retrieved_first() -> None:
    assert share_for_90_percent([3] * 90 + [1] * 5 + [2] * 5, 10) == 0.1  # exactly 90 %: one entry is enough
    assert share_for_90_percent([3] * 89 + [1] * 6 + [2] * 5, 10) == 0.2
    assert share_for_90_percent([-1, -1], 10) == 0.0


def test_diversity_of_advertisers_counts_the_slots_of_their_items() -> None:
    """Of the 11 slots with a known advertiser, advertiser 0 fills 9 and advertiser 1 two: 9.9 slots need both, of four
    known ones. With one slot less for advertiser 1, 9 of 10 are enough, and the first has them."""
    advertisers = np.array([0, 0, 0, 1, 2, 3, -1, 1])
    positives = Positives.from_pairs([0, 1, 2], [0, 0, 0], 3)
    lists = RankedLists.from_rows([[0, 1, 2, 3], [0, 1, 2, 7], [0, 1, 2, 6]])
    assert evaluate(lists, positives, 8, advertisers=advertisers).advertiser_diversity90 == 2 / 4
    lists = RankedLists.from_rows([[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 6]])
    assert evaluate(lists, positives, 8, advertisers=advertisers).advertiser_diversity90 == 1 / 4


def test_diversity_looks_at_the_first_hundred_only() -> None:
    deep = RankedLists.from_rows([list(range(300))], depth=300)
    assert evaluate(deep, Positives.from_pairs([0], [0], 1), 1000).diversity90 == 90 / 1000


def test_the_order_of_queries_changes_nothing_and_depth_beyond_k_neither() -> None:
    generator = np.random.default_rng(1)
    lists = random_lists(generator, 30, 300, depth=200)
    positives = Positives.from_pairs(generator.integers(0, 30, 80), generator.integers(-1, 300, 80), 30)
    order = generator.permutation(30)
    whole = evaluate(lists, positives, 300).figures()
    assert evaluate(lists.take(order), positives.take(order), 300).figures() == pytest.approx(whole)
    cut = RankedLists(lists.items[:, :100], lists.scores[:, :100])
    assert evaluate(cut, positives, 300).figures() == whole


def test_recall_agrees_with_a_slow_count_and_rises_to_one() -> None:
    generator = np.random.default_rng(2)
    lists = random_lists(generator, 12, 60, depth=60)
    queries, items = generator.integers(0, 12, 40), generator.integers(0, 60, 40)
    found = evaluate(lists, Positives.from_pairs(queries, items, 12), 60, ks=[1, 5, 20, 60]).recall
    for k, value in found.items():
        hits = sum(item in lists.items[query, :k] for query, item in zip(queries, items, strict=True))
        assert value == hits / 40
    assert found[60] == 1


def test_segments_add_up_to_the_whole() -> None:
    generator = np.random.default_rng(3)
    lists = random_lists(generator, 40, 200)
    positives = Positives.from_pairs(generator.integers(0, 40, 120), generator.integers(0, 200, 120), 40)
    country = generator.choice(["DE", "FR", "US"], 40)
    frame = recall_by_segment(lists, positives, country, 50)
    assert frame["segment"].to_list() == ["DE", "FR", "US"]
    assert frame["positives"].sum() == 120
    assert frame["queries"].sum() == int((positives.counts > 0).sum())
    hits = (frame["recall"] * frame["positives"]).sum()
    assert hits / 120 == pytest.approx(evaluate(lists, positives, 200, ks=[50]).recall[50])


def test_segments_of_positives_and_left_out_labels() -> None:
    lists = RankedLists.from_rows([[0, 1], [2, 3]])
    positives = Positives.from_pairs([0, 0, 1], [0, 9, 3], queries=2)
    frame = recall_by_positive_segment(lists, positives, ["checkout", "signup", "checkout"], 2)
    assert frame.rows() == [("checkout", 2, 2, 1.0), ("signup", 1, 1, 0.0)]
    frame = recall_by_segment(lists, positives, pl.Series([None, "new"]), 2)
    assert frame.rows() == [("new", 1, 1, 1.0)]
    with pytest.raises(ValueError, match="one label a query"):
        recall_by_segment(lists, positives, ["a", "b", "c"], 2)
    with pytest.raises(ValueError, match="one label a positive"):
        recall_by_positive_segment(lists, positives, ["a", "b"], 2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Queries with a chance of .3 each: 95 % intervals over 200 worlds should hold .3 in about 190."""
    generator = np.random.default_rng(4)
    positives = Positives.from_pairs(range(150), [0] * 150, 150)
    covered = 0
    for seed in range(200):
        hit = generator.random(150) < 0.3
        found = confidence_interval(
            RankedLists.from_rows([[0] if h else [1] for h in hit], 1), positives, 1, samples=200, seed=seed
        )
        assert found.estimate == pytest.approx(hit.mean())
        covered += found.low <= 0.3 <= found.high
    assert 178 <= covered <= 199


def test_intervals_are_seeded_and_without_resamples_have_no_bounds() -> None:
    generator = np.random.default_rng(5)
    lists = random_lists(generator, 50, 300)
    positives = Positives.from_pairs(generator.integers(0, 50, 90), generator.integers(0, 300, 90), 50)
    assert confidence_interval(lists, positives, 50) == confidence_interval(lists, positives, 50)
    assert confidence_interval(lists, positives, 50) != confidence_interval(lists, positives, 50, seed=1)
    assert math.isnan(confidence_interval(lists, positives, 50, samples=0).low)


def test_a_paired_difference_is_narrower_than_what_the_two_intervals_suggest() -> None:
    generator = np.random.default_rng(6)
    easy = generator.random(400) < 0.5
    better = easy | (generator.random(400) < 0.05)
    positives = Positives.from_pairs(range(400), [0] * 400, 400)
    first, second = (RankedLists.from_rows([[0] if hit else [1] for hit in hits], 1) for hits in (better, easy))
    difference = paired_difference(first, second, positives, k=1, samples=500)
    assert difference.estimate == pytest.approx(better.mean() - easy.mean())
    assert difference.low > 0  # every resample sees the better model ahead, though the single intervals overlap
    alone = confidence_interval(second, positives, 1, samples=500)
    assert difference.high - difference.low < 0.6 * (alone.high - alone.low)
    same = paired_difference(first, first, positives, k=1)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 12, 60, 100, 101])
def test_figures_of_a_catalogue_of_any_size(size: int) -> None:
    """A list of the whole catalogue holds every positive: such a K is left out, and no figure asks for deeper lists."""
    generator = np.random.default_rng(size)
    lists = search(generator.normal(size=(20, 4)), generator.normal(size=(size, 4)), min(100, size))
    positives = Positives.from_pairs(range(20), generator.integers(0, size, 20), 20)
    ks = usable_ks([10, 50, 100, 1000], size)
    assert ks == ([k for k in (10, 50, 100) if k < size] or [1])
    found = evaluate(
        lists, positives, size, advertisers=generator.integers(-1, 2, size), ks=ks, popularity=np.ones(size)
    )
    assert set(found.recall) == set(ks)
    assert found.deepest == ks[-1]
    assert all(math.isfinite(value) for value in found.figures().values())
    assert confidence_interval(lists, positives, found.deepest, samples=10).estimate == pytest.approx(
        found.recall[ks[-1]]
    )


def test_what_cannot_be_evaluated_is_an_error() -> None:
    lists = RankedLists.from_rows([[0]], depth=100)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(lists, Positives.from_pairs([], [], 1), 5)
    with pytest.raises(ValueError, match="100 deep, these figures need 1000"):
        evaluate(lists, Positives.from_pairs([0], [0], 1), 5, ks=(10, 1000))
    with pytest.raises(ValueError, match="must be the same"):
        evaluate(lists, Positives.from_pairs([0], [0], 2), 5)


def test_the_queries_of_one_user_are_drawn_together() -> None:
    """Ten users with ten queries each, all of which hit or all of which miss: ten draws, not a hundred."""
    hits = np.repeat(np.arange(10) < 5, 10)
    lists = RankedLists.from_rows([[5 if hit else 6] for hit in hits], depth=1)
    positives = Positives.from_pairs(range(100), [5] * 100, queries=100)
    owners = np.repeat(np.arange(10), 10)
    alone = confidence_interval(lists, positives, 1, samples=400)
    together = confidence_interval(lists, positives, 1, owners=owners, samples=400)
    assert alone.estimate == together.estimate == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)

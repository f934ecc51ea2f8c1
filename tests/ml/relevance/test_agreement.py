"""Agreement of raters: by hand, a published example, and planted noise and bias that are found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from ml.relevance.agreement import agreement

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RATERS, PAIRS = 10, 4000


def labels(rows: Sequence[tuple[str, str, int]]) -> pl.DataFrame:
    """Labels in the order in which they were given: item, rater, label."""
    frame = pl.DataFrame(rows, schema=["item_id", "rater_id", "label"], orient="row")
    return frame.with_columns(
        surface=pl.lit("related_pins"),
        subject_item_id=pl.lit("chair"),
        query=pl.lit(None, pl.String),
        labelled_at=pl.Series([NOON + timedelta(minutes=minute) for minute in range(len(rows))]),
    )


def two_raters_a_pair(label: NDArray[np.int64], rater: NDArray[np.int64]) -> pl.DataFrame:
    """Labels of two raters a pair, both arrays [pairs, 2]."""
    pairs = np.arange(len(label)).repeat(2)
    names = [f"rater-{number}" for number in rater.ravel()]
    return labels(list(zip([f"item-{pair}" for pair in pairs], names, label.ravel().tolist(), strict=True)))


def drawn(generator: np.random.Generator, noise: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Judgements before rounding and raters, [pairs, 2], of pairs of any relevance."""
    first = generator.integers(0, RATERS, PAIRS)
    second = (first + generator.integers(1, RATERS, PAIRS)) % RATERS
    truth = 1 + 4 * generator.random(PAIRS)
    return truth[:, None] + generator.normal(0, noise, (PAIRS, 2)), np.stack([first, second], axis=1)


def rounded(judgement: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.rint(judgement), 1, 5).astype(np.int64)


def test_labels_counted_by_hand() -> None:
    found = agreement(
        labels(
            [
                ("lamp", "ann", 5), ("lamp", "bob", 5),  # agree
                ("rug", "ann", 4), ("rug", "bob", 3),  # differ by one
                ("desk", "ann", 1), ("desk", "bob", 1), ("desk", "eve", 4),  # two of three twos differ, by three
                ("vase", "ann", 2),  # one rater
            ]
        )
    )  # fmt: skip
    assert (found.pairs, found.labels) == (3, 7)
    assert found.disagreement.estimate == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert found.far_disagreement.estimate == pytest.approx((0 + 0 + 2 / 3) / 3)
    assert found.disagreement.low < found.disagreement.estimate < found.disagreement.high
    biases = dict(found.raters.select("rater_id", "bias").rows())
    assert biases == pytest.approx({"ann": (0 + 1 - 1.5) / 3, "bob": (0 - 1 - 1.5) / 3, "eve": 3.0})
    assert not found.biased  # three pairs prove nothing


def test_the_newest_label_of_a_rater_counts() -> None:
    again = [("lamp", "ann", 1), ("lamp", "bob", 4), ("lamp", "ann", 4)]
    found = agreement(labels(again))
    assert (found.pairs, found.labels, found.disagreement.estimate) == (1, 2, 0.0)


def test_pairs_of_two_subjects_are_two_pairs() -> None:
    both = labels([("lamp", "ann", 1), ("lamp", "bob", 5)])
    found = agreement(both.with_columns(subject_item_id=pl.Series(["chair", None]), query=pl.Series([None, "chair"])))
    assert found.pairs == 0


def test_alpha_of_the_published_example() -> None:
    """Krippendorff, 2011, "Computing Krippendorff's alpha-reliability": four observers, twelve units; ordinal .815."""
    by_observer = {"A": "123321412...", "B": "1233224125.3", "C": ".3332342251.", "D": "12332441251."}
    rows = [
        (f"unit-{unit}", observer, int(value))
        for observer, values in by_observer.items()
        for unit, value in enumerate(values)
        if value != "."
    ]
    assert agreement(labels(rows)).alpha == pytest.approx(0.815, abs=0.0005)


def test_alpha_of_equal_and_of_no_labels_is_unknown() -> None:
    assert math.isnan(agreement(labels([("lamp", "ann", 5), ("lamp", "bob", 5)])).alpha)
    nothing = agreement(labels([("lamp", "ann", 5)]))
    assert math.isnan(nothing.alpha)
    assert math.isnan(nothing.disagreement.estimate)
    assert not nothing.biased


def test_disagreement_is_that_of_the_planted_noise() -> None:
    generator = np.random.default_rng(5)
    expected = np.mean([np.diff(rounded(drawn(generator, 0.5)[0]), axis=1) != 0 for _ in range(100)])
    found = []
    for _ in range(10):
        judgement, rater = drawn(generator, 0.5)
        found.append(agreement(two_raters_a_pair(rounded(judgement), rater)).disagreement)
    assert np.mean([each.estimate for each in found]) == pytest.approx(expected, abs=0.01)
    assert sum(each.low <= expected <= each.high for each in found) >= 8


def test_a_biased_rater_is_named_and_the_others_are_not() -> None:
    generator = np.random.default_rng(0)
    judgement, rater = drawn(generator, 0.5)
    found = agreement(two_raters_a_pair(rounded(judgement + 0.6 * (rater == 3)), rater))
    assert found.biased == ["rater-3"]
    of_third = found.raters.row(0, named=True)
    assert of_third["low"] < 0.6 < of_third["high"] + 0.1  # labels end at 5, which hides a part of the bias


def test_without_bias_nobody_is_named() -> None:
    generator = np.random.default_rng(1)
    named = 0
    for _ in range(100):
        judgement, rater = drawn(generator, 0.5)
        some = generator.choice(PAIRS, 250, replace=False)  # 50 labels a rater: chance differences are large
        named += bool(agreement(two_raters_a_pair(rounded(judgement[some]), rater[some])).biased)
    assert named <= 5

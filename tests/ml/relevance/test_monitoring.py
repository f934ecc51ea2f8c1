"""Monitoring: a planted loss warns on its day, undisturbed days are quiet, and chance in small cells is no news."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from ml.relevance.monitoring import MONITORED, monitor, warnings_of

FEATURES = {"v1": ["category_overlap", "graph_cosine", "price_ratio", "same_advertiser", "title_cosine"]}
COVERAGES = np.array([1.0, 0.9, 0.8, 1.0, 0.5])
TYPES, SHARES = ["shopping", "standard", "video", "carousel"], [0.86, 0.06, 0.05, 0.03]
REFERENCE_DAYS, A_REQUEST = 7, 20


def drawn_day(generator: np.random.Generator, day: int, requests: int = 300) -> pl.DataFrame:
    """The candidates of a day: those of one request resemble each other, and so do those of a day."""
    request = np.arange(requests).repeat(A_REQUEST)
    of_request, of_day = generator.normal(0, 1, (requests, 5))[request], generator.normal(0, 0.05, 5)
    values = (of_request + generator.normal(0, 1, (len(request), 5)) + of_day).astype(np.float32)
    values[:, 3] = values[:, 3] > 1.5
    relevance = 1 / (1 + np.exp(-values[:, 0] - values[:, 1]))
    values[generator.random(values.shape) > COVERAGES] = np.nan
    complete = generator.random(requests) < 0.5
    trimmed = (relevance < 0.3) & (generator.random(len(request)) < 0.9)
    return pl.DataFrame(
        {
            "log": "impressions",
            "request_id": [f"{day}-{number}" for number in request],
            "surface": pl.Series(["related_pins", "search"]).gather(generator.integers(0, 2, requests)[request]),
            "content_type": pl.Series(TYPES).gather(generator.choice(4, len(request), p=SHARES)),
            "relevance_version": "v1",
            "stage": pl.Series(["ranked", "trimmed"]).gather(trimmed.astype(int)),
            "arm": pl.Series(["production", "holdout"]).gather(
                (generator.random(requests) < 0.05).astype(int)[request]
            ),
            "inclusion_probability": np.where(complete, 0.5, 1.0)[request],
            "trim_score": relevance,
            "relevance": relevance**2,
            "features": pl.Series(values.tolist(), dtype=pl.List(pl.Float32)).list.eval(pl.element().fill_nan(None)),
            "day": day,
        }
    )


def drawn_days(seed: int, days: int, requests: int = 300) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Each of ``days`` with the days before it."""
    generator = np.random.default_rng(seed)
    past = [drawn_day(generator, day, requests) for day in range(REFERENCE_DAYS)]
    for day in range(REFERENCE_DAYS, REFERENCE_DAYS + days):
        today = drawn_day(generator, day, requests)
        yield today, pl.concat(past[-REFERENCE_DAYS:])
        past.append(today)


def without(frame: pl.DataFrame, feature: str, share: float, where: pl.Expr) -> pl.DataFrame:
    """The candidates of which a share has lost a feature."""
    place = FEATURES["v1"].index(feature)
    kept = [
        pl.when(where & lost).then(None).otherwise(pl.col("features").list.get(number))
        if number == place
        else pl.col("features").list.get(number)
        for number in range(len(COVERAGES))
        for lost in [pl.Series(np.random.default_rng(1).random(len(frame)) < share)]
    ]
    return frame.with_columns(features=pl.concat_list(kept))


@pytest.mark.slow
def test_thirty_undisturbed_days_are_quiet() -> None:
    found = pl.concat([monitor(today, before, FEATURES) for today, before in drawn_days(0, 30)])
    assert found.schema == MONITORED
    assert (
        found.filter(pl.col("bound").is_not_null()).height > 30 * 2 * 3 * 10
    )  # all but the smallest cells are watched
    assert warnings_of(found) == []


@pytest.mark.parametrize("feature", FEATURES["v1"])
def test_a_lost_feature_warns_on_its_day(feature: str) -> None:
    today, before = next(drawn_days(1, 1))
    lost = without(today, feature, 0.3, pl.col("content_type") == "shopping")
    found = monitor(lost, before, FEATURES).filter("warning", figure="coverage")
    assert set(found.select("surface", "content_type", "feature").rows()) == {
        ("related_pins", "shopping", feature),
        ("search", "shopping", feature),
    }
    assert f"the feature {feature} is known of" in warnings_of(found)[0]


def test_a_moved_feature_and_a_moved_score_warn() -> None:
    today, before = next(drawn_days(2, 1))
    doubled = pl.concat_list([pl.col("features").list.get(n) * (3 if n == 2 else 1) for n in range(5)])
    moved = today.with_columns(features=doubled, relevance=pl.col("relevance") * 0.6)
    found = monitor(moved, before, FEATURES).filter("warning", content_type="shopping", surface="search")
    assert dict(found.select("feature", "figure").rows()) == {"price_ratio": "stability", "relevance": "stability"}


def test_a_trim_that_drops_twice_as_much_warns() -> None:
    today, before = next(drawn_days(3, 1))
    more = pl.when(pl.col("trim_score") < 0.6).then(pl.lit("trimmed")).otherwise("stage")
    found = monitor(today.with_columns(stage=more), before, FEATURES).filter("warning", figure="trim_rate")
    assert ("related_pins", "shopping") in found.select("surface", "content_type").rows()
    assert "the trim drops" in warnings_of(found)[0]


def test_a_cell_of_few_requests_has_no_bounds() -> None:
    today, before = next(drawn_days(4, 1, requests=20))
    found = monitor(without(today, "price_ratio", 0.3, pl.lit(True)), before, FEATURES)
    assert found["bound"].is_null().all()
    assert monitor(today, before, {}).is_empty()


def test_a_new_version_is_held_against_the_versions_before() -> None:
    today, before = next(drawn_days(5, 1))
    new, names = today.with_columns(relevance_version=pl.lit("v2")), {"v2": FEATURES["v1"]}
    assert warnings_of(monitor(new, before, names)) == []
    lost = monitor(without(new, "price_ratio", 0.3, pl.lit(True)), before, names)
    of_scores = pl.col("feature").is_in(["trim_score", "relevance"])
    assert lost.filter(of_scores)["bound"].is_null().all()  # the scores of two versions are not compared
    assert ("related_pins", "shopping", "v2") in lost.filter("warning", feature="price_ratio").select(
        "surface", "content_type", "relevance_version"
    ).rows()
    first = monitor(new, before.clear(), names)
    assert len(first)
    assert first["bound"].is_null().all()
    assert not first["warning"].any()


def test_figures_counted_by_hand() -> None:
    candidates = pl.DataFrame(
        {
            "log": "impressions",
            "request_id": ["a", "a", "b", "b"],
            "surface": "search",
            "content_type": "video",
            "relevance_version": "v1",
            "stage": ["trimmed", "impressed", "ranked", "retrieved"],
            "arm": ["production", "production", "holdout", "production"],
            "inclusion_probability": [0.5, 1.0, 0.5, None],
            "trim_score": [0.1, 0.9, 0.5, 0.5],
            "relevance": [0.1, 0.9, 0.5, 0.5],
            "features": pl.Series([[1.0], [None], [2.0], [1.0]], dtype=pl.List(pl.Float32)),
        }
    )
    found = monitor(candidates, candidates.with_columns(day=1), {"v1": ["overlap"]})
    values = {(row["figure"], row["feature"]): row["value"] for row in found.iter_rows(named=True)}
    assert values["coverage", "overlap"] == pytest.approx((2 + 2 + 1) / 6)
    assert values["trim_rate", ""] == pytest.approx(2 / 3)  # of the two of production that reached the trim
    assert values["stability", "relevance"] == pytest.approx(0)


def test_a_log_without_content_types_is_watched() -> None:
    today, before = (each.with_columns(content_type=pl.lit(None, pl.String)) for each in next(drawn_days(6, 1)))
    assert warnings_of(monitor(today, before, FEATURES)) == []
    found = monitor(without(today, "price_ratio", 0.3, pl.lit(True)), before, FEATURES)
    assert set(found["content_type"]) == {"unknown"}
    assert set(found.filter("warning")["feature"]) == {"price_ratio"}


def test_each_log_is_held_against_itself() -> None:
    """Of two logs the trim of one drops nothing: the mix of both may change, and nothing warns."""
    sampled, sampled_before = next(drawn_days(7, 1))
    shown, shown_before = (
        each.with_columns(stage=pl.lit("impressed"), log=pl.lit("impressions")) for each in next(drawn_days(8, 1))
    )
    sampled, sampled_before = (each.with_columns(log=pl.lit("funnel_sample")) for each in (sampled, sampled_before))
    few = shown_before.filter(pl.col("request_id").hash(0) % 5 == 0)
    found = monitor(pl.concat([sampled, shown]), pl.concat([sampled_before, few]), FEATURES)
    assert warnings_of(found) == []
    assert set(found.filter(figure="trim_rate")["log"]) == {"funnel_sample"}  # it holds whatever the trim dropped
    assert set(found.filter(figure="coverage")["log"]) == {"funnel_sample", "impressions"}
    alone = monitor(shown, few, FEATURES)
    assert set(alone.filter(figure="trim_rate")["value"]) == {0.0}
    lost = pl.concat([sampled, without(shown, "price_ratio", 0.5, pl.lit(True))])
    warned = monitor(lost, pl.concat([sampled_before, shown_before]), FEATURES).filter("warning")
    assert set(warned["log"]) == {"impressions"}
    assert warnings_of(warned)[0].startswith("impressions, related_pins, ")
